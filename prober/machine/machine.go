// Package machine sees what a prober's machine has in common with others and no operator writes into a label: its name server, and its system. Hello states it, and the servers
// make failure domains of it.
package machine

import (
	"bufio"
	"bytes"
	"cmp"
	"io/fs"
	"net/netip"
	"strings"

	"github.com/probemesh/probemesh/internal/domain"
)

// Facts reads what there is below root, the file system of the machine (os.DirFS("/")); what cannot be read is left out.
func Facts(root fs.FS) map[string]string {
	facts := map[string]string{}
	if r := resolver(root); r != "" {
		facts[domain.Resolver] = r
	}
	if s := system(root); s != "" {
		facts[domain.OS] = s
	}
	return facts
}

// resolver is the first name server that is not on the machine itself. Behind a stub such as systemd-resolved it is the first that the stub asks; probers that have the stub's
// address in common have nothing in common.
func resolver(root fs.FS) string {
	for _, file := range []string{"etc/resolv.conf", "run/systemd/resolve/resolv.conf"} {
		raw, err := fs.ReadFile(root, file)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(bytes.NewReader(raw))
		for lines.Scan() {
			words := strings.Fields(lines.Text())
			if len(words) < 2 || words[0] != "nameserver" {
				continue
			}
			if a, err := netip.ParseAddr(words[1]); err == nil && !a.IsLoopback() && !a.IsUnspecified() {
				return a.Unmap().WithZone("").String()
			}
		}
	}
	return ""
}

// system is the distribution with its version, and the kernel.
func system(root fs.FS) string {
	var words []string
	for _, file := range []string{"etc/os-release", "usr/lib/os-release"} {
		raw, err := fs.ReadFile(root, file)
		if err != nil {
			continue
		}
		values := map[string]string{}
		for line := range strings.Lines(string(raw)) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			values[k] = strings.Trim(v, `"'`)
		}
		if id := values["ID"]; id != "" {
			words = append(words, strings.TrimSuffix(id+"-"+cmp.Or(values["BUILD_ID"], values["VERSION_ID"]), "-"))
			break
		}
	}
	if raw, err := fs.ReadFile(root, "proc/sys/kernel/osrelease"); err == nil {
		words = append(words, "linux-"+strings.TrimSpace(string(raw)))
	}
	return strings.Join(words, " ")
}
