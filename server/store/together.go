package store

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Change is the opening or the end of one incident, of which nobody is told: of a member of a group.
type Change struct {
	Incident *statev1.StoredIncident
	// CheckModRevision is that of the check, for an opening; 0: whatever it is. ModRevision is that of the incident, for an end.
	CheckModRevision, ModRevision int64
}

// ChangeIncidents opens those of the incidents that are open, as OpenIncident does, and closes those that are resolved, as ResolveIncident does, all in one transaction or
// none: at most 38 of them, each of another check. It returns the revision of the write. An attempt whose outcome was not known and that is repeated gives ErrConflict, as
// does anything that has changed meanwhile: carry them out one by one then, which recognises what was done. Errors: ErrFenced, ErrConflict.
func (s *Store) ChangeIncidents(ctx context.Context, fence Fence, changes []Change) (int64, error) {
	t := txn{what: "change incidents of a group"}
	for _, c := range changes {
		i := c.Incident.GetIncident()
		value, _, err := s.fit(ctx, c.Incident, nil)
		if err != nil {
			return 0, err
		}
		key, name := openKey(subject(i)), i.GetName()
		if i.GetState() == meshv1.Incident_RESOLVED {
			t.ifs = append(t.ifs, clientv3.Compare(clientv3.ModRevision(key), "=", c.ModRevision))
			t.then = append(t.then, clientv3.OpDelete(key), clientv3.OpDelete(idKey(name)), clientv3.OpPut(closedKey(name), value))
			continue
		}
		t.ifs = append(t.ifs, clientv3.Compare(clientv3.CreateRevision(key), "=", 0), clientv3.Compare(clientv3.CreateRevision(closedKey(name)), "=", 0))
		if c.CheckModRevision != 0 {
			t.ifs = append(t.ifs, clientv3.Compare(clientv3.ModRevision(checkKey(i.GetCheck())), "=", c.CheckModRevision))
		}
		t.then = append(t.then, clientv3.OpPut(key, value), clientv3.OpPut(idKey(name), subject(i)))
	}
	return s.write(ctx, fence, t, func(*clientv3.TxnResponse) (int64, error) {
		return 0, conflict("", "something has changed of %d incidents that were to be changed together", len(changes))
	})
}
