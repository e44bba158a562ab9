package configfile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/probemesh/probemesh/internal/configfile"
)

func TestTheBodyFileIsReadWhereTheFileIs(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("text.json", `{"a": 1}`)
	write("binary", "\xff\x00")
	write("long", strings.Repeat("x", 8193))
	write("empty", "")
	load := func(options string) (*configfile.Config, error) {
		write("checks.yaml", "checks:\n- name: a\n  uri: http://a.example.com/\n  http: {"+options+"}\n")
		return configfile.Load([]string{filepath.Join(dir, "checks.yaml")}, nil)
	}
	for name, want := range map[string]string{"text.json": `{"a": 1}`, "binary": "\xff\x00", filepath.Join(dir, "text.json"): `{"a": 1}`} {
		c, err := load("body_file: '" + name + "'")
		if err != nil {
			t.Fatal(err)
		}
		h := c.Config.Checks[0].Http
		if h.BodyFile != "" || h.Body+string(h.BodyBytes) != want {
			t.Errorf("%s: got %v", name, h)
		}
	}
	for options, want := range map[string]string{
		"body_file: none":               "http.body_file: cannot be read: open " + filepath.Join(dir, "none"),
		"body_file: long":               "has more than 8192 bytes",
		"body_file: empty":              "is empty",
		"body_file: text.json, body: x": "is given besides another body",
	} {
		if _, err := load(options); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "checks.yaml:4:") {
			t.Errorf("%s: %v", options, err)
		}
	}
}
