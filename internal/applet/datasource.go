package applet

import (
	"net/url"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
)

// CheckDataSource tells what is wrong with the data source of kine, as its drivers would; empty if nothing
// is. The drivers' errors repeat what they could not read, which may be a password: they are not passed on.
// No file that the data source names is opened.
func (Programs) CheckDataSource(source string) string {
	scheme, rest, _ := strings.Cut(source, "://")
	switch scheme {
	case "mysql":
		if _, err := mysql.ParseDSN(rest); err != nil {
			return "the driver cannot read it: must be such as mysql://user:password@tcp(192.0.2.30:3306)/k0s, without escapes before the question mark"
		}
	case "postgres", "postgresql":
		return checkPostgres(rest)
	case "nats":
		for _, server := range strings.Split(source, ",") {
			if u, err := url.Parse(server); err != nil || u.Scheme != "nats" {
				return "the driver cannot read it: must be such as nats://user:password@192.0.2.30:4222?bucket=k0s, or several with commas " +
					"between them, each with nats://; percent-encode what is special in a user or a password"
			}
		}
	}
	return ""
}

func checkPostgres(rest string) string {
	u, err := url.Parse("postgres://" + rest)
	if err != nil {
		return "the driver cannot read it: must be such as postgres://user:password@192.0.2.30:5432/k0s; percent-encode what is special in a user or a password, as %2F for /"
	}
	parameters, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "the driver cannot read the parameters after the question mark: must be such as sslmode=verify-full&connect_timeout=5, percent-encoded"
	}
	for _, file := range []string{"passfile", "service", "servicefile", "sslcert", "sslkey", "sslpassword", "sslrootcert"} {
		parameters.Del(file)
	}
	u.RawQuery = parameters.Encode()
	if _, err := pgx.ParseConfig(u.String()); err != nil {
		return "the driver refuses a port, or a parameter after the question mark, such as sslmode: disable, allow, prefer, require, verify-ca or verify-full"
	}
	return ""
}
