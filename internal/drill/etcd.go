package drill

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/probemesh/probemesh/internal/localmesh"
)

// etcdLimit bounds one question to etcd.
const etcdLimit = 2 * time.Second

// EtcdLeader is the server whose etcd member leads etcd's own consensus. It asks the members that run.
func (m *Mesh) EtcdLeader(ctx context.Context) (*localmesh.Member, error) {
	var leader *localmesh.Member
	err := Until(ctx, "etcd has a leader", 30*time.Second, func() (bool, string) {
		var err error
		leader, _, err = m.etcdMembers(ctx)
		return err == nil, fmt.Sprint(err)
	})
	return leader, err
}

// etcdMembers asks each member that runs who it is and who leads.
func (m *Mesh) etcdMembers(ctx context.Context) (leader *localmesh.Member, ids map[*localmesh.Member]uint64, err error) {
	ids = map[*localmesh.Member]uint64{}
	var leads uint64
	for _, s := range m.Servers() {
		if !s.Alive() {
			continue
		}
		status, err := etcdStatus(ctx, s)
		if err != nil {
			return nil, nil, fmt.Errorf("the etcd member of %s: %w", s, err)
		}
		ids[s], leads = status.Header.MemberId, status.Leader
	}
	for s, id := range ids {
		if id == leads && id != 0 {
			return s, ids, nil
		}
	}
	return nil, nil, errors.New("no etcd member that runs leads")
}

func etcdClient(s *localmesh.Member) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{"http://" + s.EtcdClient}, DialTimeout: etcdLimit, Logger: zap.NewNop()})
}

func etcdStatus(ctx context.Context, s *localmesh.Member) (*clientv3.StatusResponse, error) {
	c, err := etcdClient(s)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, etcdLimit)
	defer cancel()
	return c.Status(ctx, "http://"+s.EtcdClient)
}

// MoveEtcdLeader makes the etcd member of a server lead etcd's consensus, and waits until it does.
func (m *Mesh) MoveEtcdLeader(ctx context.Context, to *localmesh.Member) error {
	return Until(ctx, fmt.Sprintf("the etcd member of %s leads", to), 30*time.Second, func() (bool, string) {
		leader, ids, err := m.etcdMembers(ctx)
		switch {
		case err != nil:
			return false, err.Error()
		case leader == to:
			return true, ""
		}
		c, err := etcdClient(leader)
		if err != nil {
			return false, err.Error()
		}
		defer c.Close()
		ask, cancel := context.WithTimeout(ctx, etcdLimit)
		defer cancel()
		_, err = c.MoveLeader(ask, ids[to])
		return false, fmt.Sprint(err)
	})
}
