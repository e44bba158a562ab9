//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A local mesh of three datacenters, one of which stands still for some seconds, server and prober. Afterwards all three histories have the same results, and those of the other
// datacenters' probers have no gap.
func TestADatacenterThatWasCutOffLacksNoResult(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers with an etcd cluster; run without -short")
	}
	t.Parallel()
	data := t.TempDir()
	up := begin(t, "up", []string{"up", "--datacenters", "3", "--probers", "1", "--data", data, "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"})
	// Its members end when it does, and write until then: what they write into must outlive them.
	t.Cleanup(func() { up.interrupt() })
	var at addresses
	until(t, "the local mesh is up", func() (bool, string) {
		b, err := os.ReadFile(filepath.Join(data, "addresses.json"))
		if err != nil {
			if !up.alive() {
				t.Fatal(tail(up.log.String(), 20))
			}
			return false, err.Error()
		}
		return json.Unmarshal(b, &at) == nil && len(at.Servers) == 3 && len(at.Probers) == 3, string(b)
	})
	target := startWebTarget(t, nil)
	m := &mesh{t: t, data: data, grpc: at.Servers[0].GRPC + "," + at.Servers[1].GRPC}
	m.apply(fmt.Sprintf("checks: [{name: shop, uri: \"http://%s/\", interval: 1s, timeout: 500ms, probers: 3}]\n", target.address))
	began := time.Now()
	results := func(address string) map[string]bool { return resultsOf(t, address, began) }
	until(t, "all servers have results of all probers", func() (bool, string) {
		n := 0
		for _, s := range at.Servers {
			for _, p := range at.Probers {
				for r := range results(s.HTTP) {
					if strings.HasPrefix(r, p.Name+" ") {
						n++
						break
					}
				}
			}
		}
		return n == 9, fmt.Sprintf("%d of 9 pairs of server and prober", n)
	})

	cut := []int{at.Servers[2].PID, at.Probers[2].PID}
	signal := func(s syscall.Signal) {
		for _, pid := range cut {
			if err := syscall.Kill(pid, s); err != nil {
				t.Error(err)
			}
		}
	}
	signal(syscall.SIGSTOP)
	t.Cleanup(func() { signal(syscall.SIGCONT) })
	stopped := time.Now()
	time.Sleep(8 * time.Second)
	continued := time.Now()
	signal(syscall.SIGCONT)

	during := func(all map[string]bool, prober string) (n int) {
		for r := range all {
			name, at, _ := strings.Cut(r, " ")
			if ms, err := time.Parse(time.RFC3339Nano, at); err == nil && name == prober && ms.After(stopped) && ms.Before(continued) {
				n++
			}
		}
		return n
	}
	until(t, "the server that stood still has what it missed", func() (bool, string) {
		reference, mine := results(at.Servers[0].HTTP), results(at.Servers[2].HTTP)
		a, b := during(mine, at.Probers[0].Name), during(mine, at.Probers[1].Name)
		missing := 0
		for r := range reference {
			if _, when, _ := strings.Cut(r, " "); !mine[r] && when < continued.UTC().Format("2006-01-02T15:04:05.000Z07:00") {
				missing++
			}
		}
		return a >= 7 && b >= 7 && missing == 0, fmt.Sprintf("%d and %d results of 8 seconds, %d missing", a, b, missing)
	})
}

// resultsOf is what a server's history has since a time: the prober and when it began, in RFC 3339.
func resultsOf(t *testing.T, address string, since time.Time) map[string]bool {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + address + "/api/v1/query?" + url.Values{"query": {"probe_success[10m]"}}.Encode())
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, r := range answer.Data.Result {
		for _, v := range r.Values {
			seconds, _ := v[0].(float64)
			if at := time.UnixMilli(int64(seconds*1000 + 0.5)); at.After(since) {
				all[r.Metric["prober"]+" "+at.UTC().Format("2006-01-02T15:04:05.000Z07:00")] = true
			}
		}
	}
	return all
}
