package embedded

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func startMember(t *testing.T, cfg Config) *Member {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	m, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func closeMember(t *testing.T, m *Member) {
	t.Helper()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestDataSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	m := startMember(t, Config{Dir: dir})
	if _, err := m.Client().Put(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	if got := m.Endpoints(); len(got) != 0 {
		t.Errorf("listens for clients at %v, want nowhere", got)
	}
	closeMember(t, m)
	m = startMember(t, Config{Dir: dir})
	defer closeMember(t, m)
	r, err := m.Client().Get(t.Context(), "k")
	if err != nil || len(r.Kvs) != 1 || string(r.Kvs[0].Value) != "v" {
		t.Fatalf("after the restart: %v, %v", r, err)
	}
}

func TestClientsOfOtherProcessesAreHeardWhenAsked(t *testing.T) {
	m := startMember(t, Config{Dir: t.TempDir(), ListenClient: "http://127.0.0.1:0"})
	defer closeMember(t, m)
	if len(m.Endpoints()) != 1 || strings.HasSuffix(m.Endpoints()[0], ":0") {
		t.Fatalf("endpoints %v, want one with a real port", m.Endpoints())
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: m.Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := c.Put(ctx, "k", "v"); err != nil {
		t.Fatal(err)
	}
}

func TestDirectoryInUseIsRefusedWithASentence(t *testing.T) {
	dir := t.TempDir()
	m := startMember(t, Config{Dir: dir})
	defer closeMember(t, m)
	_, err := Start(t.Context(), Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "used by another process") {
		t.Fatalf("got %v, want a sentence about the other process", err)
	}
}

func TestDamagedDirectoryIsRefusedWithASentence(t *testing.T) {
	dir := t.TempDir()
	m := startMember(t, Config{Dir: dir})
	closeMember(t, m)
	for _, path := range []string{"member/snap/db"} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte("this is no database of etcd"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Start(t.Context(), Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "move the directory away") {
		t.Fatalf("got %v, want a sentence that says what to do", err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "member")); err != nil {
		t.Fatal(err)
	}
	m = startMember(t, Config{Dir: dir})
	closeMember(t, m)
}

func TestValidateListsEveryFault(t *testing.T) {
	err := Config{ListenPeer: "tcp://x", InitialCluster: "b=http://h:1", Name: "a", ClusterState: "old",
		Election: time.Millisecond, CompactAfter: time.Second, QuotaBytes: 1}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"no data directory", "tcp://x", "does not have this member", "neither new", "election", "compaction", "quota"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}
