package server

import (
	"context"
	"io"
	"log/slog"
	"testing"
)

func TestAServerThatIsStoppedWhileItWaitsForQuorumEndsWithoutAnError(t *testing.T) {
	s, err := New(Config{Name: "a", Datacenter: "a", Data: t.TempDir(), GRPCListen: "127.0.0.1:0", HTTPListen: "127.0.0.1:0", EtcdListenPeer: "http://127.0.0.1:0",
		EtcdInitialCluster: "a=http://127.0.0.1:0,b=http://127.0.0.1:1,c=http://127.0.0.1:2", EtcdClusterState: "new"}, Deps{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
}
