package store

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// BuildPolicyName is the resource name of the one policy of builds.
const BuildPolicyName = "policies/builds"

const buildPolicyKey = policyPrefix + "builds"

// storedBuild is a build without what the mesh knows by itself.
func storedBuild(b *meshv1.Build) *meshv1.Build {
	stored := proto.CloneOf(b)
	stored.Probers, stored.Canaries, stored.Incident, stored.WaitsFor, stored.Etag = nil, nil, "", "", ""
	return stored
}

// GetBuild reads how far a build is trusted, with its etag. Errors: NOT_FOUND.
func (s *Store) GetBuild(ctx context.Context, name string) (Versioned[*meshv1.Build], error) {
	kv, err := s.get(ctx, buildKey(name), "read "+name)
	if err != nil {
		return Versioned[*meshv1.Build]{}, err
	}
	if kv == nil {
		return Versioned[*meshv1.Build]{}, fault.NotFound(name)
	}
	v, err := versioned(kv, &meshv1.Build{})
	v.Value.Etag = etagOf(v.ModRevision)
	return v, err
}

// ListBuilds reads all builds by name, with their etags, and the revision at which they were read.
func (s *Store) ListBuilds(ctx context.Context) ([]Versioned[*meshv1.Build], int64, error) {
	list, rev, err := listAll(ctx, s, page{prefix: buildPrefix}, "list builds", func() *meshv1.Build { return &meshv1.Build{} })
	for _, v := range list {
		v.Value.Etag = etagOf(v.ModRevision)
	}
	return list, rev, err
}

// PutBuild writes, for an operator, how far a build is trusted, whose mod revision is still modRevision, and returns the new one. Errors: ErrConflict.
func (s *Store) PutBuild(ctx context.Context, b *meshv1.Build, modRevision int64) (int64, error) {
	return s.putAt(ctx, nil, buildKey(b.GetName()), b.GetName(), storedBuild(b), modRevision)
}

// LeaderPutBuild is PutBuild under the fence of a reign; with modRevision 0 there must be no such build yet. Errors: ErrFenced, ErrConflict.
func (s *Store) LeaderPutBuild(ctx context.Context, fence Fence, b *meshv1.Build, modRevision int64) (int64, error) {
	return s.putAt(ctx, &fence, buildKey(b.GetName()), b.GetName(), storedBuild(b), modRevision)
}

// DropBuild deletes a build whose mod revision is still modRevision. Errors: ErrFenced, ErrConflict.
func (s *Store) DropBuild(ctx context.Context, fence Fence, name string, modRevision int64) error {
	key := buildKey(name)
	_, err := s.write(ctx, fence, txn{what: "forget " + name,
		ifs:  []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", modRevision)},
		then: []clientv3.Op{clientv3.OpDelete(key)},
		els:  []clientv3.Op{clientv3.OpGet(key, clientv3.WithKeysOnly())}}, func(r *clientv3.TxnResponse) (int64, error) {
		if len(r.Responses[0].GetResponseRange().Kvs) == 0 {
			return r.Header.Revision, nil
		}
		return 0, conflict(name, "%s changed since it was read; read it again", name)
	})
	return err
}

// GetBuildPolicy reads how builds are tried, as it was set, with its etag. Without one there is an empty policy at revision 0.
func (s *Store) GetBuildPolicy(ctx context.Context) (Versioned[*meshv1.BuildPolicy], error) {
	v := Versioned[*meshv1.BuildPolicy]{Value: &meshv1.BuildPolicy{}}
	kv, err := s.get(ctx, buildPolicyKey, "read "+BuildPolicyName)
	if err == nil && kv != nil {
		v, err = versioned(kv, &meshv1.BuildPolicy{})
		v.Value.Etag = etagOf(v.ModRevision)
	}
	v.Value.Name = BuildPolicyName
	return v, err
}

// PutBuildPolicy writes how builds are tried, if that is still at modRevision (0: it was never set), and returns the new one. Errors: ErrConflict.
func (s *Store) PutBuildPolicy(ctx context.Context, p *meshv1.BuildPolicy, modRevision int64) (int64, error) {
	stored := proto.CloneOf(p)
	stored.Name, stored.Etag = BuildPolicyName, ""
	return s.putAt(ctx, nil, buildPolicyKey, BuildPolicyName, stored, modRevision)
}
