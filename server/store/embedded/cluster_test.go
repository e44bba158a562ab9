package embedded

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// ports finds free loopback ports.
func ports(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out
}

// three starts three members that form a cluster.
func three(t *testing.T) ([]*Member, []Config) {
	t.Helper()
	addrs := ports(t, 3)
	var all []string
	for i, a := range addrs {
		all = append(all, fmt.Sprintf("m%d=http://%s", i, a))
	}
	members, cfgs := make([]*Member, 3), make([]Config, 3)
	var wg sync.WaitGroup
	for i := range members {
		cfgs[i] = Config{Dir: t.TempDir(), Name: fmt.Sprintf("m%d", i), ListenPeer: "http://" + addrs[i], InitialCluster: strings.Join(all, ",")}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			var err error
			if members[i], err = Start(ctx, cfgs[i]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return members, cfgs
}

func TestThreeMembersSurviveTheLossOfOne(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three members")
	}
	members, _ := three(t)
	defer func() {
		for _, m := range members[1:] {
			closeMember(t, m)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := members[0].Client().Put(ctx, "k", "v"); err != nil {
		t.Fatal(err)
	}
	closeMember(t, members[0])
	for {
		// The remaining two elect; until then, reads fail or wait.
		r, err := members[1].Client().Get(ctx, "k")
		if err == nil && len(r.Kvs) == 1 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("no answer from the two that are left: %v", err)
		}
	}
	if _, err := members[2].Client().Put(ctx, "k", "w"); err != nil {
		t.Fatal(err)
	}
}

func TestMemberThatHasLostItsDataIsRefusedWithASentence(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three members")
	}
	members, cfgs := three(t)
	defer func() {
		for _, m := range members[1:] {
			closeMember(t, m)
		}
	}()
	closeMember(t, members[0])
	for _, state := range []string{"new", "existing"} {
		cfg := cfgs[0]
		cfg.Dir, cfg.ClusterState = t.TempDir(), state
		m, err := Start(t.Context(), cfg)
		if err == nil {
			closeMember(t, m)
			t.Fatalf("%s: a member without its data took its place again", state)
		}
		if !strings.Contains(err.Error(), "m0 is a member of the etcd cluster already") || !strings.Contains(err.Error(), "member remove m0") {
			t.Errorf("%s: %v", state, err)
		}
	}
	m, err := Start(t.Context(), cfgs[0])
	if err != nil {
		t.Fatalf("with its data: %v", err)
	}
	closeMember(t, m)
}
