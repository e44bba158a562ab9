//go:build linux

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/probemesh/probemesh/internal/localmesh"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Three servers stand on one disk, which is full: the members of all three stop with their locks held, with calls of every server under way in them. Once there is room, all
// begin anew by themselves, and what went down meanwhile is told of.
func TestServersWhoseDisksAreAllFullBeginAnewTogether(t *testing.T) {
	t.Parallel()
	data := smallDisk(t, "600m")
	lm, err := localmesh.New(localmesh.Options{Program: binary, Data: data, Datacenters: 3, Probers: 1, CleanEnv: true, DieWithParent: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lm.Stop)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := lm.Start(ctx); err != nil {
		t.Fatal(err)
	}
	m := &mesh{t: t, grpc: lm.Addresses()}
	m.connect(lm.Servers()[0].GRPC)
	shop, other, hook := startWebTarget(t, nil), startWebTarget(t, nil), startReceiver(t)
	m.apply(hook.yaml("ops") + webCheck("shop", shop.url(), pace, 3, 2, "receivers: [receivers/ops]"))
	m.apply(webCheck("other", other.url(), pace, 3, 2, "receivers: [receivers/ops]"))
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 3)
	m.awaitVerdict("other", meshv1.CheckStatus_UP, 3)

	filler := filepath.Join(data, "filler")
	fill(t, filler)
	other.stop() // an incident, which makes each member write
	for _, s := range lm.Servers() {
		until(t, s.Name+" says that its disk is full", func() (bool, string) {
			body := readiness(s.HTTP)
			return strings.Contains(body, "[-] disk"), body
		})
	}
	shop.stop()
	m.awaitVerdict("shop", meshv1.CheckStatus_DOWN, 3)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for _, s := range lm.Servers() {
		until(t, s.Name+" has begun anew", func() (bool, string) {
			body := readiness(s.HTTP)
			return strings.Contains(body, "[+] disk") && strings.Contains(body, "[+] leader"), body
		})
	}
	until(t, "both outages are told of", func() (bool, string) {
		told := map[string]bool{}
		for _, d := range hook.distinct() {
			told[d.note.GetCheck()] = true
		}
		return told["checks/shop"] && told["checks/other"], fmt.Sprint(told)
	})
	if all := hook.distinct(); len(all) != 2 {
		t.Errorf("want one OPENED of each, got %s", story(all))
	}
}

// readiness is what a server says of itself at /readyz, or why it does not.
func readiness(address string) string {
	resp, err := http.Get("http://" + address + "/readyz")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	return string(body)
}
