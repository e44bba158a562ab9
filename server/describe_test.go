package server

import (
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/health"
)

func TestAServerThatIsNotHeardIsMissedSinceThen(t *testing.T) {
	all := []health.Server{
		{Name: "servers/a", Self: true},
		{Name: "servers/b", Beat: true},
		{Name: "servers/c", Datacenter: "fra", Version: "1.0", GRPC: "10.0.0.3:7700", HTTP: "10.0.0.3:7701", Silence: time.Minute},
	}
	got := missed(all, noon())
	if len(got) != 1 || got[0].GetName() != "servers/c" || !got[0].GetSilentTime().AsTime().Equal(noon().Add(-time.Minute)) || got[0].GetGrpcAddress() != "10.0.0.3:7700" || got[0].GetDatacenter() != "fra" {
		t.Errorf("missed: %v", got)
	}
	for name, silent := range map[string]bool{"servers/b": false, "servers/c": true} {
		v := &meshv1.Server{Name: name}
		describe(v, all, noon())
		if v.GetHeard() == silent || (v.GetSilentTime() != nil) != silent {
			t.Errorf("%v", v)
		}
	}
}
