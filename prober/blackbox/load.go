package blackbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/probemesh/probemesh/internal/nearest"
)

// maxFile is the most bytes that a configuration file may have.
const maxFile = 4 << 20

// builtin are the modules without a file: those of blackbox_exporter's example that need nobody's names.
const builtin = `modules:
  http_2xx: {prober: http}
  http_post_2xx: {prober: http, http: {method: POST}}
  tcp_connect: {prober: tcp}
  icmp: {prober: icmp}
  icmp_ttl5: {prober: icmp, timeout: 5s, icmp: {ttl: 5}}
  grpc: {prober: grpc, grpc: {tls: true, preferred_ip_protocol: ip4}}
  grpc_plain: {prober: grpc, grpc: {tls: false}}
  dns_udp: {prober: dns, dns: {query_name: ".", query_type: NS}}
  dns_tcp: {prober: dns, dns: {query_name: ".", query_type: NS, transport_protocol: tcp}}
  pop3s_banner:
    prober: tcp
    tcp: {tls: true, query_response: [{expect: "^\\+OK"}]}
  ssh_banner:
    prober: tcp
    tcp: {query_response: [{expect: "^SSH-2.0-"}, {send: SSH-2.0-blackbox-ssh-check}]}
  irc_banner:
    prober: tcp
    tcp:
      query_response:
        - {send: NICK prober}
        - {send: "USER prober prober prober :prober"}
        - {expect: "PING :([^ ]+)", send: "PONG ${1}"}
        - {expect: "^:[^ ]+ 001"}
`

// Builtin gives the modules that there are without a file: http_2xx, http_post_2xx, tcp_connect, icmp, icmp_ttl5, grpc, grpc_plain, dns_udp, dns_tcp, pop3s_banner,
// ssh_banner and irc_banner. It is valid always.
func Builtin() *Config {
	c, err := Parse([]byte(builtin))
	if err != nil {
		panic(err) // a fault of this file, which a test looks for
	}
	return c
}

// Load reads a configuration file. The error names the file, the line where it is known, what is wrong and what would be right.
func Load(name string) (*Config, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	case len(text) > maxFile:
		return nil, fmt.Errorf("%s is longer than %d MiB", name, maxFile>>20)
	}
	c, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// Parse reads a configuration from its text. The error is as that of [Load], without the file.
func Parse(text []byte) (*Config, error) {
	c := &Config{}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, sentence(err)
	}
	for _, name := range sortedKeys(c.Modules) {
		if c.Modules[name] == nil {
			c.Modules[name] = &Module{} // named, and nothing more: doubts tells of it
		}
		if err := c.Modules[name].validate(); err != nil {
			return nil, fmt.Errorf("module %s: %w", name, err)
		}
	}
	return c, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// UnmarshalYAML sets the defaults first. (With the older of the library's two signatures, which keeps to known fields.)
func (m *Module) UnmarshalYAML(unmarshal func(any) error) error {
	*m = defaults()
	type plain Module
	if err := unmarshal((*plain)(m)); err != nil {
		return err
	}
	var sections map[string]any
	if err := unmarshal(&sections); err != nil {
		return err
	}
	m.DNS.there = sections["dns"] != nil
	return nil
}

var unknownField = regexp.MustCompile(`^line (\d+): field (\S+) not found in type (\S+)$`)

// sentence turns what the YAML library says of unknown options into sentences.
func sentence(err error) error {
	var faults *yaml.TypeError
	if !errors.As(err, &faults) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	lines := make([]string, 0, len(faults.Errors))
	for _, l := range faults.Errors {
		if m := unknownField.FindStringSubmatch(l); m != nil {
			l = fmt.Sprintf("line %s: there is no option %s here", m[1], m[2])
			if near := nearest.To(m[2], options(m[3])); near != "" {
				l += "; did you mean " + near + "?"
			}
		}
		lines = append(lines, l)
	}
	return errors.New(strings.Join(lines, "\n"))
}

// options are the options of the structs of that name among those that a module is made of. Types that set defaults, or check what they read, go by the name plain.
func options(name string) []string {
	var out []string
	seen := map[reflect.Type]bool{}
	var visit func(t reflect.Type)
	visit = func(t reflect.Type) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct || seen[t] {
			return
		}
		seen[t] = true
		if t.String() == name || name == "blackbox.plain" && t == reflect.TypeFor[Module]() || name == "config.plain" && strings.HasPrefix(t.String(), "config.") {
			out = append(out, fields(t)...)
		}
		for i := range t.NumField() {
			visit(t.Field(i).Type)
		}
	}
	visit(reflect.TypeFor[Config]())
	return out
}

// fields are the options that a struct has, inlined ones included.
func fields(t reflect.Type) []string {
	var out []string
	if t.Kind() != reflect.Struct {
		return nil // a map of one's own names
	}
	for i := range t.NumField() {
		name, flags, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		switch {
		case strings.Contains(flags, "inline"):
			out = append(out, fields(t.Field(i).Type)...)
		case name != "" && name != "-":
			out = append(out, name)
		}
	}
	return out
}
