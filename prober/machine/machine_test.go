package machine

import (
	"maps"
	"testing"
	"testing/fstest"
)

func TestFactsAreWhatOthersMayHaveInCommon(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	for name, x := range map[string]struct {
		root fstest.MapFS
		want map[string]string
	}{
		"plain": {fstest.MapFS{"etc/resolv.conf": file("# hi\nsearch x\nnameserver 192.0.2.53\nnameserver 192.0.2.54\n"), "etc/os-release": file("ID=debian\nVERSION_ID=\"12\"\n"),
			"proc/sys/kernel/osrelease": file("6.1.0-18-amd64\n")}, map[string]string{"resolver": "192.0.2.53", "os": "debian-12 linux-6.1.0-18-amd64"}},
		"stub": {fstest.MapFS{"etc/resolv.conf": file("nameserver 127.0.0.53\n"), "run/systemd/resolve/resolv.conf": file("nameserver 2001:db8::53\n"),
			"usr/lib/os-release": file("ID=flatcar\nVERSION_ID=1\nBUILD_ID=2024-01\n")}, map[string]string{"resolver": "2001:db8::53", "os": "flatcar-2024-01"}},
		"local resolver": {fstest.MapFS{"etc/resolv.conf": file("nameserver ::1\nnameserver nonsense\n")}, map[string]string{}},
		"nothing":        {fstest.MapFS{}, map[string]string{}},
	} {
		if got := Facts(x.root); !maps.Equal(got, x.want) {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}
}
