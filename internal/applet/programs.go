package applet

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	kineapp "github.com/k3s-io/kine/pkg/app"
	"github.com/spf13/pflag"
	"github.com/urfave/cli/v2"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/cli/globalflag"
	"k8s.io/component-base/featuregate"
	"k8s.io/component-base/logs"
	"k8s.io/klog/v2"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controllermanageroptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
	kubeletoptions "k8s.io/kubernetes/cmd/kubelet/app/options"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	kubeletscheme "k8s.io/kubernetes/pkg/kubelet/apis/config/scheme"
	kubeletvalidation "k8s.io/kubernetes/pkg/kubelet/apis/config/validation"
	"k8s.io/kubernetes/pkg/kubelet/cm"
	"k8s.io/kubernetes/pkg/kubelet/cm/cpumanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/topologymanager"
	"k8s.io/kubernetes/pkg/kubelet/eviction"
	netutils "k8s.io/utils/net"
	kjson "sigs.k8s.io/json"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/node"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// Programs answers what only the programs themselves can tell about a configuration: see
// v1beta1.Programs. Nothing is made ready for it, and nothing stays changed in the process.
type Programs struct{}

// Flags lists the names of a program's flags, without --version; none if they are not known.
func (Programs) Flags(program string) []string {
	return slices.Sorted(maps.Keys(flagsOf(program)))
}

// CheckFlags tells by name what is wrong with values for known flags of a program, as far as the program
// would find it when it reads its command line.
func (Programs) CheckFlags(program string, values map[string]string) map[string]string {
	problems := map[string]string{}
	known := flagsOf(program)
	for name, value := range values {
		flag := trial(known[name])
		if name == v1beta1.FeatureGatesFlag || flag == nil {
			continue // gates have a check of their own
		}
		if err := flag.Set(value); err != nil {
			problems[name] = cmp.Or(flagWants[kindOf(flag)], program+" refuses it: "+err.Error())
		}
	}
	return problems
}

// flagValue is what both kinds of flags have.
type flagValue interface{ Set(value string) error }

// flagsOf returns the flags of a program by name. The programs' commands are not asked: making one takes
// over the process' signals.
func flagsOf(program string) map[string]flagValue {
	flags := map[string]flagValue{}
	add := func(sets ...*pflag.FlagSet) {
		for _, set := range sets {
			set.VisitAll(func(f *pflag.Flag) { flags[f.Name] = f.Value })
		}
	}
	addGo := func(set *flag.FlagSet) {
		set.VisitAll(func(f *flag.Flag) { flags[f.Name] = f.Value })
	}
	addSections := func(sections cliflag.NamedFlagSets) {
		globalflag.AddGlobalFlags(sections.FlagSet("global"), program, logs.SkipLoggingConfigurationFlags())
		add(slices.Collect(maps.Values(sections.FlagSets))...)
	}
	set := pflag.NewFlagSet(program, pflag.ContinueOnError)
	set.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	goSet := flag.NewFlagSet(program, flag.ContinueOnError)
	switch program {
	case name.KubeAPIServer:
		addSections(apiserveroptions.NewServerRunOptions().Flags())
	case name.KubeControllerManager:
		options, err := controllermanageroptions.NewKubeControllerManagerOptions()
		if err != nil {
			return nil
		}
		addSections(options.Flags(controllermanager.KnownControllers(), controllermanager.ControllersDisabledByDefault(), controllermanager.ControllerAliases()))
	case name.KubeScheduler:
		addSections(*scheduleroptions.NewOptions().Flags)
	case name.Kubelet:
		config, err := kubeletoptions.NewKubeletConfiguration()
		if err != nil {
			return nil
		}
		kubeletoptions.NewKubeletFlags().AddFlags(set)
		kubeletoptions.AddKubeletConfigFlags(set, config)
		set.AddGoFlagSet(flag.CommandLine) // cAdvisor's
		add(set)
	case name.KubeProxy:
		proxy.NewOptions().AddFlags(set)
		set.AddGoFlagSet(flag.CommandLine)
		add(set)
	case name.Etcd:
		embed.NewConfig().AddFlags(goSet)
		// These three are etcd's command's own.
		goSet.String("config-file", "", "")
		goSet.String("initial-cluster-state", "", "")
		goSet.String("discovery-fallback", "", "")
		addGo(goSet)
	case name.Kine:
		for _, f := range kineapp.New().Flags {
			for _, name := range f.Names() {
				// Of the same types, as kine's own write into its configuration.
				switch f.(type) {
				case *cli.BoolFlag:
					goSet.Bool(name, false, "")
				case *cli.DurationFlag:
					goSet.Duration(name, 0, "")
				case *cli.IntFlag:
					goSet.Int(name, 0, "")
				case *cli.Int64Flag:
					goSet.Int64(name, 0, "")
				default:
					goSet.String(name, "", "")
				}
			}
		}
		addGo(goSet)
	}
	return flags
}

// trial returns a value that can be set without any effect; nil if there is none. A program's own types
// write into the options that were made for the flags. Those of the flag packages may write into a
// variable of some package, but most are no more than what they hold, and another of them is as good.
func trial(v flagValue) flagValue {
	t := reflect.TypeOf(v)
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == nil:
		return nil
	case t.PkgPath() != reflect.TypeFor[flag.Flag]().PkgPath() && t.PkgPath() != reflect.TypeFor[pflag.Flag]().PkgPath():
		return v
	case t.Kind() == reflect.Struct || t.Kind() == reflect.Func: // which refer to something
		return nil
	}
	fresh, _ := reflect.New(t).Interface().(flagValue)
	return fresh
}

// kindOf is the kind of a flag's value, such as "int" of an *intValue.
func kindOf(v flagValue) string {
	return strings.TrimSuffix(reflect.Indirect(reflect.ValueOf(v)).Type().Name(), "Value")
}

// flagWants says in words what flags of a kind can be set to.
var flagWants = map[string]string{
	"bool": "must be true or false", "duration": "must be a duration such as 1m30s", "ip": "must be an IP address",
	"float32": "must be a number", "float64": "must be a number",
	"int": "must be a whole number", "int32": "must be a whole number", "int64": "must be a whole number",
	"verbosityLevelPflag": "must be a whole number, not negative",
	"uint":                "must be a whole number, not negative", "uint32": "must be a whole number, not negative", "uint64": "must be a whole number, not negative",
}

// Features lists the names of a component's feature gates. All components know all of them: they
// are one executable, with one registry.
func (Programs) Features(string) []string {
	var names []string
	for feature := range utilfeature.DefaultMutableFeatureGate.GetAll() {
		names = append(names, string(feature))
	}
	slices.Sort(names)
	return names
}

// CheckFeatures tells by name what is wrong with values for known feature gates.
func (Programs) CheckFeatures(_ string, gates map[string]bool) map[string]string {
	problems := map[string]string{}
	known := utilfeature.DefaultMutableFeatureGate.GetAll()
	for name, enabled := range gates {
		if spec := known[featuregate.Feature(name)]; spec.LockToDefault && spec.Default != enabled {
			problems[name] = fmt.Sprintf("is locked: Kubernetes has it always %s, leave it out", map[bool]string{true: "on", false: "off"}[spec.Default])
		}
	}
	if len(problems) > 0 {
		return problems
	}
	// What is left are features that need others, which may be on because of AllAlpha or AllBeta.
	blame := slices.SortedFunc(maps.Keys(gates), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) // no name is taken for a part of another
	})
	err := utilfeature.DefaultMutableFeatureGate.DeepCopy().(featuregate.MutableFeatureGateWithLogger).SetFromMapWithLogger(klog.Logger{}, gates)
	for _, problem := range split(err) {
		i := max(0, slices.IndexFunc(blame, func(name string) bool { return strings.Contains(problem, name) }))
		problems[blame[i]] = cmp.Or(problems[blame[i]], "cannot be: "+problem)
	}
	return problems
}

// CheckKubelet tells what is wrong with settings that are to be laid over k0s' own.
func (p Programs) CheckKubelet(settings []byte) field.ErrorList {
	settings, errs := decodable(settings)
	if settings == nil {
		return errs
	}
	merged, err := mergeKubelet(settings)
	if err != nil {
		return append(errs, allOfThem(err.Error()))
	}
	if problems := p.checkKubeletGates(merged.FeatureGates); len(problems) > 0 {
		errs = append(errs, problems...)
		merged.FeatureGates = nil // with them the defaults would panic
	}
	if !boundedCPUs(merged.ReservedSystemCPUs) {
		errs = append(errs, field.Invalid(field.NewPath("reservedSystemCPUs"), merged.ReservedSystemCPUs, "must be a list of the host's processors such as 0-1,8"))
		merged.ReservedSystemCPUs = ""
	}
	// The kubelet will log what it thinks of the gates; here it would only be in the way.
	defer klog.CaptureState().Restore()
	klog.SetLogger(klog.Logger{})
	scheme, _, err := kubeletscheme.NewSchemeAndCodecs()
	if err != nil {
		return append(errs, allOfThem(err.Error()))
	}
	scheme.Default(merged)
	c := &kubeletconfig.KubeletConfiguration{}
	if err := scheme.Convert(merged, c, nil); err != nil {
		return append(errs, allOfThem(err.Error()))
	}
	var problems field.ErrorList
	for _, problem := range split(kubeletvalidation.ValidateKubeletConfiguration(c, utilfeature.DefaultFeatureGate)) {
		problems = append(problems, inOurWords(problem))
	}
	return append(errs, unrelated(append(problems, checkKubeletStart(c)...), errs)...)
}

// decodable returns what of settings can be decoded, and why the rest cannot; nil if nothing can.
func decodable(settings []byte) ([]byte, field.ErrorList) {
	errs := decodeStrictly(settings, &kubeletv1beta1.KubeletConfiguration{})
	if len(errs) == 0 {
		return settings, nil
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(settings, &fields) != nil {
		return nil, errs
	}
	for _, problem := range errs {
		if problem.Field == "" {
			return nil, errs
		}
		delete(fields, topOf(problem))
	}
	rest, err := json.Marshal(fields)
	if err != nil {
		return nil, append(errs, allOfThem(err.Error()))
	}
	return rest, errs
}

// topOf names the setting that a problem is in.
func topOf(problem *field.Error) string {
	return regexp.MustCompile(`^[^.\[]*`).FindString(problem.Field)
}

// unrelated leaves out the problems that may be there only because a setting that has been refused was
// left out of the rest.
func unrelated(problems, refused field.ErrorList) field.ErrorList {
	return slices.DeleteFunc(problems, func(problem *field.Error) bool {
		message := problem.Field + " " + problem.Detail
		return slices.ContainsFunc(refused, func(r *field.Error) bool {
			word := `\b` + regexp.QuoteMeta(topOf(r)) + `\b`
			if topOf(r) == "featureGates" {
				word = "feature|gate|enabled"
			}
			return regexp.MustCompile("(?i)" + word).MatchString(message)
		})
	})
}

// boundedCPUs is false for a list of so many processors that no host has them: it would fill the memory.
func boundedCPUs(list string) bool {
	const most = 1 << 16
	var count uint64
	for part := range strings.SplitSeq(list, ",") {
		first, last, _ := strings.Cut(part, "-")
		from, err := strconv.ParseUint(strings.TrimPrefix(first, "+"), 10, 63)
		if err != nil {
			continue // what is no list of numbers, the kubelet finds
		}
		to, err := strconv.ParseUint(strings.TrimPrefix(last, "+"), 10, 63)
		if err != nil {
			continue
		}
		if to > most+from {
			return false
		}
		if count += max(from, to) - from; count > most {
			return false
		}
	}
	return true
}

// mergeKubelet lays settings over those of some node.
func mergeKubelet(settings []byte) (*kubeletv1beta1.KubeletConfiguration, error) {
	config := v1beta1.Default()
	config.Spec.WorkerProfiles = []v1beta1.WorkerProfile{{Name: v1beta1.DefaultProfile, Values: &runtime.RawExtension{Raw: settings}}}
	layout := host.Layout{DataDir: host.DefaultDataDir, RunDir: host.DefaultRunDir, KubeletRoot: host.DefaultDataDir + "/kubelet"}
	return node.KubeletConfig(node.Options{Config: config, Layout: layout}, false, "/etc/resolv.conf")
}

func (p Programs) checkKubeletGates(gates map[string]bool) field.ErrorList {
	var errs field.ErrorList
	path, features := field.NewPath("featureGates"), p.Features(name.Kubelet)
	problems := p.CheckFeatures(name.Kubelet, gates)
	for _, name := range slices.Sorted(maps.Keys(gates)) {
		if !slices.Contains(features, name) {
			errs = append(errs, field.Forbidden(path.Key(name), "the kubelet has no such feature"+v1beta1.Nearest(name, features)))
		} else if reason, ok := problems[name]; ok {
			errs = append(errs, field.Invalid(path.Key(name), gates[name], reason))
		}
	}
	return errs
}

// checkKubeletStart has the rules that the kubelet looks at later than at those of its validation,
// but before it runs.
func checkKubeletStart(c *kubeletconfig.KubeletConfiguration) field.ErrorList {
	var errs field.ErrorList
	check := func(name string, err error) {
		if err != nil {
			errs = append(errs, field.Forbidden(field.NewPath(name), err.Error()))
		}
	}
	_, err := eviction.ParseThresholdConfig(nil, c.EvictionHard, nil, nil, c.EvictionMinimumReclaim)
	check("evictionHard", err)
	_, err = eviction.ParseThresholdConfig(nil, nil, c.EvictionSoft, c.EvictionSoftGracePeriod, nil)
	check("evictionSoft", err)
	_, err = cm.ParseQOSReserved(c.QOSReserved)
	check("qosReserved", err)
	_, err = cliflag.TLSVersion(c.TLSMinVersion)
	check("tlsMinVersion", err)
	_, err = cliflag.TLSCipherSuites(c.TLSCipherSuites)
	check("tlsCipherSuites", err)
	size, err := resource.ParseQuantity(c.ContainerLogMaxSize)
	if _, whole := size.AsInt64(); err != nil || !whole {
		errs = append(errs, field.Invalid(field.NewPath("containerLogMaxSize"), c.ContainerLogMaxSize, "must be a quantity such as 10Mi"))
	}
	if netutils.ParseIPSloppy(c.Address) == nil {
		errs = append(errs, field.Invalid(field.NewPath("address"), c.Address, "must be an IP address"))
	}
	for _, period := range []struct {
		name  string
		value metav1.Duration
	}{
		{"cpuManagerReconcilePeriod", c.CPUManagerReconcilePeriod}, {"fileCheckFrequency", c.FileCheckFrequency},
		{"httpCheckFrequency", c.HTTPCheckFrequency}, {"nodeStatusUpdateFrequency", c.NodeStatusUpdateFrequency},
		{"runtimeRequestTimeout", c.RuntimeRequestTimeout}, {"syncFrequency", c.SyncFrequency},
	} {
		if period.value.Duration < 0 {
			errs = append(errs, field.Invalid(field.NewPath(period.name), period.value.Duration.String(), "must not be negative"))
		}
	}
	errs = append(errs, checkPolicyOptions(c)...)
	for name, reserved := range map[string]map[string]string{"kubeReserved": c.KubeReserved, "systemReserved": c.SystemReserved} {
		resources := []string{"cpu", "ephemeral-storage", "memory", "pid"}
		for _, key := range slices.Sorted(maps.Keys(reserved)) {
			path := field.NewPath(name).Key(key)
			quantity, err := resource.ParseQuantity(reserved[key])
			switch {
			case !slices.Contains(resources, key):
				errs = append(errs, field.Forbidden(path, "nothing can be reserved of it, but of "+strings.Join(resources, ", ")))
			case err != nil || quantity.Sign() < 0:
				errs = append(errs, field.Invalid(path, reserved[key], "must be a quantity such as 500m or 1Gi, not negative"))
			}
		}
	}
	for _, policy := range []struct{ name, value, none, static string }{
		{"cpuManagerPolicy", c.CPUManagerPolicy, "none", "static"}, {"memoryManagerPolicy", c.MemoryManagerPolicy, "None", "Static"},
	} {
		if policy.value != policy.none && policy.value != policy.static {
			errs = append(errs, field.Invalid(field.NewPath(policy.name), policy.value, "must be "+policy.none+" or "+policy.static))
		}
	}
	return errs
}

// checkPolicyOptions checks the options of the managers of processors and of NUMA nodes, each by itself
// and then together, where a policy reads them.
func checkPolicyOptions(c *kubeletconfig.KubeletConfiguration) field.ErrorList {
	var errs field.ErrorList
	check := func(setting string, options map[string]string, parse func(map[string]string) error) {
		path, before := field.NewPath(setting), len(errs)
		for _, name := range slices.Sorted(maps.Keys(options)) {
			if err := parse(map[string]string{name: options[name]}); err != nil {
				errs = append(errs, field.Forbidden(path.Key(name), err.Error()))
			}
		}
		if err := parse(options); err != nil && len(errs) == before {
			errs = append(errs, field.Forbidden(path, err.Error()))
		}
	}
	switch c.CPUManagerPolicy {
	case "none":
		if len(c.CPUManagerPolicyOptions) > 0 {
			errs = append(errs, field.Forbidden(field.NewPath("cpuManagerPolicyOptions"), "the cpuManagerPolicy none has no options: they are for static"))
		}
	case "static":
		// Whether an option is ready depends on the process' gates, which are not those of the settings.
		gated := c.FeatureGates["CPUManagerPolicyAlphaOptions"] || c.FeatureGates["AllAlpha"]
		options := maps.Clone(c.CPUManagerPolicyOptions)
		maps.DeleteFunc(options, func(name, _ string) bool {
			err := cpumanager.CheckPolicyOptionAvailable(name)
			return err != nil && gated && strings.Contains(err.Error(), "Alpha-level")
		})
		check("cpuManagerPolicyOptions", options, func(options map[string]string) error {
			_, err := cpumanager.NewStaticPolicyOptions(options)
			return err
		})
	}
	if c.TopologyManagerPolicy != kubeletconfig.NoneTopologyManagerPolicy {
		check("topologyManagerPolicyOptions", c.TopologyManagerPolicyOptions, func(options map[string]string) error {
			_, err := topologymanager.NewPolicyOptions(klog.Logger{}, options)
			return err
		})
	}
	return errs
}

// decodeStrictly decodes each field by itself, so that every mistake is found, not the first only.
func decodeStrictly(data []byte, into any) field.ErrorList {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return field.ErrorList{allOfThem("must be a mapping of names to values")}
	}
	target := reflect.TypeOf(into).Elem()
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		one, err := json.Marshal(map[string]json.RawMessage{name: fields[name]})
		if err != nil {
			errs = append(errs, field.Forbidden(field.NewPath(name), err.Error()))
			continue
		}
		strict, err := kjson.UnmarshalStrict(one, reflect.New(target).Interface())
		for _, problem := range strict {
			errs = append(errs, unknownField(problem, target))
		}
		if err != nil {
			errs = append(errs, wrongType(name, err, target))
		}
	}
	return errs
}

func unknownField(problem error, in reflect.Type) *field.Error {
	var at kjson.FieldError
	if !errors.As(problem, &at) || !strings.HasPrefix(problem.Error(), "unknown field") {
		return allOfThem(problem.Error())
	}
	parent, name := "", at.FieldPath()
	if i := strings.LastIndex(name, "."); i >= 0 {
		parent, name = name[:i], name[i+1:]
	}
	return field.Forbidden(field.NewPath(at.FieldPath()), "unknown field"+v1beta1.Nearest(name, namesIn(typeAt(in, parent))))
}

func wrongType(name string, err error, in reflect.Type) *field.Error {
	wrong := new(json.UnmarshalTypeError)
	path := name
	if errors.As(err, &wrong) && wrong.Field != "" {
		path = wrong.Field
	}
	want := ""
	switch t := typeAt(in, path); {
	case t == reflect.TypeFor[metav1.Duration]():
		want = "must be a duration such as 1m30s"
	case wrong.Type == nil:
		return field.Forbidden(field.NewPath(path), strings.TrimPrefix(err.Error(), "json: "))
	case t != nil && wrong.Type != t && (t.Kind() == reflect.Map || t.Kind() == reflect.Slice):
		want = "each value must be " + inWords(wrong.Type)
	default:
		want = "must be " + inWords(wrong.Type)
	}
	if wrong.Value != "" {
		kinds := map[string]string{"array": "a list", "bool": "true or false", "number": "a number", "object": "a mapping", "string": "a string"}
		want += ", not " + cmp.Or(kinds[wrong.Value], strings.TrimPrefix(wrong.Value, "number "))
	}
	return field.Forbidden(field.NewPath(path), want)
}

func inWords(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "a mapping"
	case reflect.Float64:
		return "a number"
	default:
		return "a whole number (" + t.Kind().String() + ")"
	}
}

// typeAt is the type at a path such as a.b[0].c; nil if there is none.
func typeAt(t reflect.Type, path string) reflect.Type {
	for name := range strings.SplitSeq(regexp.MustCompile(`\[\d+\]`).ReplaceAllString(path, ""), ".") {
		if name == "" {
			break
		}
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			return nil
		}
		fields := reflect.VisibleFields(t)
		i := slices.IndexFunc(fields, func(f reflect.StructField) bool { return jsonName(f) == name })
		if i < 0 {
			return nil
		}
		t = fields[i].Type
	}
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// namesIn lists the fields of a struct, or of what a list or a mapping consists of.
func namesIn(t reflect.Type) []string {
	for t != nil && (t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map) {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		if name := jsonName(f); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// allOfThem is about no setting in particular.
func allOfThem(reason string) *field.Error {
	return &field.Error{Type: field.ErrorTypeForbidden, Detail: reason}
}

// inOurWords leaves out of a kubelet's message what is said by the place it is shown at: that of
// the first setting it names.
func inOurWords(message string) *field.Error {
	reason := strings.TrimPrefix(message, "invalid configuration: ")
	reason = regexp.MustCompile(` ?\(--[a-zA-Z-]+\)`).ReplaceAllString(reason, "")
	settings := namesIn(reflect.TypeFor[kubeletv1beta1.KubeletConfiguration]())
	for _, word := range regexp.MustCompile(`[a-zA-Z]+(\.[a-zA-Z]+)*`).FindAllString(reason, -1) {
		first, rest, nested := strings.Cut(word, ".")
		i := slices.IndexFunc(settings, func(name string) bool { return strings.EqualFold(name, first) })
		if i < 0 {
			continue
		}
		path := settings[i]
		if nested {
			path += "." + strings.ToLower(rest[:1]) + rest[1:]
		}
		return field.Forbidden(field.NewPath(path), strings.TrimLeft(strings.TrimPrefix(reason, word), ": "))
	}
	return allOfThem(reason)
}

// split returns what an error consists of, in alphabetical order.
func split(err error) []string {
	if err == nil {
		return nil
	}
	var messages []string
	for _, e := range utilerrors.Flatten(utilerrors.NewAggregate([]error{err})).Errors() {
		messages = append(messages, e.Error())
	}
	slices.Sort(messages)
	return messages
}
