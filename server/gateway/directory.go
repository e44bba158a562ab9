package gateway

import (
	"sync"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// directory is the list of servers as probers are told of it, made once for all sessions whenever it changes. Safe for concurrent use.
type directory struct {
	mesh Mesh

	mu      sync.Mutex // guards everything below
	places  []*meshv1.ServerAddress
	changed <-chan struct{} // closed when places may be old; nil before the first read
}

// read gives the list, which must not be changed, and a channel that is closed when there is another.
func (d *directory) read() ([]*meshv1.ServerAddress, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changed != nil {
		select {
		case <-d.changed:
		default:
			return d.places, d.changed
		}
	}
	records, changed := d.mesh.Servers()
	places := make([]*meshv1.ServerAddress, 0, len(records))
	for _, r := range records {
		places = append(places, &meshv1.ServerAddress{Server: r.GetName(), Datacenter: r.GetDatacenter(), Address: r.GetGrpcAddress()})
	}
	d.places, d.changed = places, changed
	return places, changed
}

// same tells whether a prober that was told of one list need not be told of the other.
func same(a, b []*meshv1.ServerAddress) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].GetServer() != b[i].GetServer() || a[i].GetDatacenter() != b[i].GetDatacenter() || a[i].GetAddress() != b[i].GetAddress() {
			return false
		}
	}
	return true
}
