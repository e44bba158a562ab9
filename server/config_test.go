package server

import (
	"strings"
	"testing"
)

func TestWhatIsNoEtcdURLIsNamedWithWhatWouldBeRight(t *testing.T) {
	for endpoint, good := range map[string]bool{
		"http://127.0.0.1:2379": true, "https://etcd-1.example.com:2379": true, "127.0.0.1:2379": true, "unix:///run/etcd.sock": true,
		"foo": false, "htp://x:1": false, "http:///x y": false, "": false,
	} {
		err := Config{Name: "a", Datacenter: "a", Data: t.TempDir(), Etcd: []string{endpoint}}.Validate()
		if good && err != nil || !good && (err == nil || !strings.Contains(err.Error(), "http://HOST:2379")) {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}
