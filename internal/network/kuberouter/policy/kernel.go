package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	links "github.com/vishvananda/netlink"

	"k0s.io/k0s/internal/host"
)

const (
	// tableName is that of both of our tables.
	tableName = "kuberouter-policy"
	// Table is that of the policies, as nft names it.
	Table = "inet " + tableName
	// SenderTable is that of what each pod may send.
	SenderTable = "bridge " + tableName

	// An attribute of netlink holds 64 KiB; an element of a map with the name of its chain takes some 100 B.
	elementsAtOnce = 250
	// A transaction is one message, and all of its receipts come before any is read.
	buffer = 64 << 20
	// The kernel answers at once, or not at all.
	answerTimeout = 30 * time.Second
)

// layout is what is always in a table.
type layout struct {
	name   string // as nft names it
	family nftables.TableFamily
	// sets are without elements.
	sets map[string]*Set
	// chains come after those that their rules go to.
	chains []*nftables.Chain
	rules  map[string][][]expr.Any
}

// Kernel makes a table in the kernel equal to a model. It is not for use by several at a time.
type Kernel struct {
	layout layout
	// bridge is that of pods that a table which does not know them cuts off; empty if it does not.
	bridge string
	// have is what the table holds; nil if that is not known.
	have *Model
	// conn is kept as long as it works: who changed the table is told by the connection.
	conn   *nftables.Conn
	socket *netlink.Conn
	port   atomic.Uint32
}

// NewKernel returns a Kernel for the policies, that does not know what is in the table, and has changed nothing.
func NewKernel(g Guard) *Kernel { return &Kernel{layout: g.layout(), bridge: g.Bridge} }

// NewSenders returns the same for what each pod may send.
func NewSenders() *Kernel { return &Kernel{layout: senderLayout()} }

// Prepare makes the table, without policies, if it is not there: no pod can be reached then, until it has
// been entered. A table that is there is left as it is. Where there is none, but pods run, none is made: it would
// cut them off until Apply knows them, and what starts meanwhile waits for that.
func (k *Kernel) Prepare() error {
	there, err := exists(k.layout.name)
	if err != nil || there {
		return err
	}
	if k.bridge != "" {
		if there, err = havePods(k.bridge); err != nil || there {
			return err
		}
	}
	return k.Apply(&Model{Sets: k.layout.sets})
}

// havePods tells whether a bridge has ports.
func havePods(bridge string) (bool, error) {
	all, err := links.LinkList()
	if err != nil {
		return false, fmt.Errorf("listing network interfaces: %w", err)
	}
	index := slices.IndexFunc(all, func(l links.Link) bool { return l.Attrs().Name == bridge })
	return index >= 0 && slices.ContainsFunc(all, func(l links.Link) bool { return l.Attrs().MasterIndex == all[index].Attrs().Index }), nil
}

// TableExists tells whether the table of the policies is in the kernel.
func TableExists() (bool, error) { return exists(Table) }

func exists(table string) (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("connecting to nftables: %w", err)
	}
	tables, err := host.NFTables(c)
	if err != nil {
		return false, fmt.Errorf("listing nftables tables: %w", err)
	}
	return tables[table] != nil, nil
}

// DeleteTables takes our tables back, if they are there: no policy is in force then.
func DeleteTables() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("connecting to nftables: %w", err)
	}
	tables, err := host.NFTables(c)
	if err != nil {
		return fmt.Errorf("listing nftables tables: %w", err)
	}
	for _, name := range []string{Table, SenderTable} {
		if t := tables[name]; t != nil {
			c.DelTable(t)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("deleting the nftables tables %s and %s: %w", Table, SenderTable, err)
	}
	return nil
}

// owns tells whether a netlink connection is ours, by its port. It may be called at any time.
func (k *Kernel) owns(port uint32) bool { return port == k.port.Load() }

// Forget makes the next Apply write everything.
func (k *Kernel) Forget() { k.have = nil }

// Close ends the connection. The table stays.
func (k *Kernel) Close() {
	if k.conn != nil {
		_ = k.conn.CloseLasting()
	}
	k.conn, k.socket = nil, nil
}

// Apply makes the table equal to want, in one transaction: all of it, or nothing. What is there already
// is left in place, so that no packet finds an open table in between.
func (k *Kernel) Apply(want *Model) error {
	if k.have == nil {
		if err := k.apply(want, (*transaction).takeOver); err == nil {
			return nil
		}
		// Something in the table is of another kind than ours.
		return k.apply(want, (*transaction).replace)
	}
	return k.apply(want, func(t *transaction) (*Model, error) { return k.have, nil })
}

// apply writes the difference between what begin leaves in the table and want.
func (k *Kernel) apply(want *Model, begin func(*transaction) (*Model, error)) error {
	if err := k.connect(); err != nil {
		return fmt.Errorf("connecting to nftables: %w", err)
	}
	t := &transaction{Conn: k.conn, layout: k.layout, table: &nftables.Table{Name: tableName, Family: k.layout.family}}
	var have *Model
	err := k.socket.SetDeadline(time.Now().Add(answerTimeout)) // begin asks, too
	if err == nil {
		have, err = begin(t)
	}
	if err == nil {
		t.change(have, want)
		err = t.err
	}
	if err == nil {
		err = t.Flush()
	}
	if err != nil {
		k.have = nil
		k.Close() // receipts may be left in it
		return fmt.Errorf("writing the nftables table %s: %w", k.layout.name, err)
	}
	k.have = want
	return nil
}

func (k *Kernel) connect() error {
	if k.conn != nil {
		return nil
	}
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		k.socket = c
		k.port.Store(c.PID())
		return errors.Join(c.SetReadBuffer(buffer), c.SetWriteBuffer(buffer))
	}))
	if err != nil {
		return err
	}
	k.conn = conn
	return nil
}

// transaction collects changes of the table.
type transaction struct {
	*nftables.Conn
	layout layout
	table  *nftables.Table
	// setIDs count the sets of the transaction.
	setIDs uint32
	err    error
}

// takeOver empties what is in the table, to be filled again in the same transaction. It returns what is left.
func (t *transaction) takeOver() (*Model, error) {
	left := &Model{Sets: map[string]*Set{}, Chains: map[string]Chain{}}
	t.AddTable(t.table)
	chains, err := t.ListChainsOfTableFamily(t.table.Family)
	if err != nil {
		return nil, fmt.Errorf("listing chains: %w", err)
	}
	for _, c := range chains {
		if c.Table.Name != tableName {
			continue
		}
		t.FlushChain(&nftables.Chain{Name: c.Name, Table: t.table})
		left.Chains[c.Name] = Chain{}
	}
	sets, err := t.GetSets(t.table)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing sets: %w", err)
	}
	for _, s := range sets {
		switch {
		case s.Anonymous: // went with its rule
		case s.Interval:
			t.DelSet(&nftables.Set{Name: s.Name, Table: t.table})
		default:
			t.FlushSet(&nftables.Set{Name: s.Name, Table: t.table})
			left.Sets[s.Name] = &Set{}
		}
	}
	t.base(left)
	return left, nil
}

// replace begins with an empty table.
func (t *transaction) replace() (*Model, error) {
	t.AddTable(t.table) // so that deleting never fails
	t.DelTable(t.table)
	t.AddTable(t.table)
	left := &Model{Sets: map[string]*Set{}, Chains: map[string]Chain{}}
	t.base(left)
	return left, nil
}

// base writes what is always in the table, and makes left be without it.
func (t *transaction) base(left *Model) {
	for name, set := range t.layout.sets {
		if left.Sets[name] == nil {
			t.addSet(name, set)
		}
		left.Sets[name] = set
	}
	for _, c := range t.layout.chains {
		ours := *c
		ours.Table = t.table
		t.AddChain(&ours)
		delete(left.Chains, c.Name)
	}
	for name, list := range t.layout.rules {
		for _, exprs := range list {
			t.addRule(name, exprs, "")
		}
	}
}

// change makes of have what is wanted. Things are made before what refers to them, and deleted after.
func (t *transaction) change(have, want *Model) {
	for name, set := range want.Sets {
		old := have.Sets[name]
		if old == nil {
			t.addSet(name, set)
			old = &Set{}
		}
		if set.Kind != Verdicts {
			t.changeElements(name, old, set)
		}
	}
	for name := range want.Chains {
		if _, there := have.Chains[name]; !there {
			t.AddChain(&nftables.Chain{Name: name, Table: t.table})
		}
	}
	for name, chain := range want.Chains {
		old, there := have.Chains[name]
		if slices.Equal(old.Rules, chain.Rules) {
			continue
		}
		if there {
			t.FlushChain(&nftables.Chain{Name: name, Table: t.table})
		}
		for _, r := range chain.Rules {
			t.addRule(name, r.exprs(chain.Direction), r.Comment)
		}
	}
	for name, set := range want.Sets {
		if set.Kind == Verdicts {
			t.changeElements(name, have.Sets[name], set)
		}
	}
	for name := range have.Chains {
		if _, wanted := want.Chains[name]; !wanted {
			t.FlushChain(&nftables.Chain{Name: name, Table: t.table})
		}
	}
	for name := range have.Chains {
		if _, wanted := want.Chains[name]; !wanted {
			t.DelChain(&nftables.Chain{Name: name, Table: t.table})
		}
	}
	for name := range have.Sets {
		if want.Sets[name] == nil {
			t.DelSet(&nftables.Set{Name: name, Table: t.table})
		}
	}
}

func (t *transaction) changeElements(name string, old, now *Set) {
	var gone, added []nftables.SetElement
	if old != nil {
		for e, chain := range old.Elements {
			if other, there := now.Elements[e]; !there || other != chain {
				gone = append(gone, now.encode(e, "")...)
			}
		}
	}
	for e, chain := range now.Elements {
		var other string
		there := false
		if old != nil {
			other, there = old.Elements[e]
		}
		if !there || other != chain {
			added = append(added, now.encode(e, chain)...)
		}
	}
	set := now.header(name, t.table)
	for chunk := range slices.Chunk(gone, elementsAtOnce) {
		t.fail(t.SetDeleteElements(set, chunk))
	}
	for chunk := range slices.Chunk(added, elementsAtOnce) {
		t.fail(t.SetAddElements(set, chunk))
	}
}

func (t *transaction) addSet(name string, s *Set) {
	set := s.header(name, t.table)
	t.setIDs++
	set.ID = t.setIDs
	t.fail(t.AddSet(set, nil))
}

func (t *transaction) addRule(chain string, exprs []expr.Any, comment string) {
	r := &nftables.Rule{Table: t.table, Chain: &nftables.Chain{Name: chain, Table: t.table}, Exprs: exprs}
	if comment != "" {
		const longest = 120 // nft shows no more than 128 bytes with the zero
		r.UserData = userdata.AppendString(nil, userdata.TypeComment, comment[:min(len(comment), longest)])
	}
	t.AddRule(r)
}

func (t *transaction) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// header is the set as nftables knows it, without elements.
func (s *Set) header(name string, table *nftables.Table) *nftables.Set {
	address := nftables.TypeIPAddr
	if s.Family == IPv6 {
		address = nftables.TypeIP6Addr
	}
	set := &nftables.Set{Table: table, Name: name, KeyType: address}
	switch s.Kind {
	case Ranges:
		set.Interval = true
	case Endpoints:
		set.KeyType = concatenation(address, nftables.TypeInetProto, nftables.TypeInetService)
		set.Concatenation = true
	case Pairs:
		set.KeyType = concatenation(address, address)
		set.Concatenation = true
	case Verdicts:
		set.IsMap, set.DataType = true, nftables.TypeVerdict
	case Interfaces:
		set.KeyType, set.KeyByteOrder = nftables.TypeIFName, binaryutil.NativeEndian // so that nft shows the names
	case Senders:
		set.KeyType = concatenation(nftables.TypeIFName, nftables.TypeEtherAddr, address)
		set.Concatenation = true
	case Addresses:
	}
	return set
}

// concatenation of few enough types.
func concatenation(types ...nftables.SetDatatype) nftables.SetDatatype {
	t, _ := nftables.ConcatSetType(types...)
	return t
}

// encode makes of an element what nftables calls elements: two for a range.
func (s *Set) encode(e Element, chain string) []nftables.SetElement {
	key := e.Address.AsSlice()
	switch s.Kind {
	case Ranges:
		elements := []nftables.SetElement{{Key: key}}
		if after := e.To.Next(); after.IsValid() { // else it is open at the end
			elements = append(elements, nftables.SetElement{Key: after.AsSlice(), IntervalEnd: true})
		}
		return elements
	case Endpoints: // each part takes a multiple of 4 bytes
		key = append(key, e.Protocol, 0, 0, 0)
		key = append(binary.BigEndian.AppendUint16(key, e.Port), 0, 0)
	case Pairs:
		key = append(key, e.To.AsSlice()...)
	case Verdicts:
		if chain != "" {
			return []nftables.SetElement{{Key: key, VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
		}
	case Interfaces:
		key = paddedName(e.Interface)
	case Senders:
		key = slices.Concat(paddedName(e.Interface), e.MAC[:], []byte{0, 0}, key)
	case Addresses:
	}
	return []nftables.SetElement{{Key: key}}
}
