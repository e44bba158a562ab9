package members

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// reachTimeout bounds the question whether a member is there; callTimeout each call to etcd.
const (
	reachTimeout = time.Second
	callTimeout  = 5 * time.Second
	// settleTimeout is shorter than the 10s after which clients give up.
	settleTimeout = 8 * time.Second
)

// Service is the MemberService. Its methods may be called concurrently.
type Service struct {
	meshv1.UnimplementedMemberServiceServer
	client   *clientv3.Client
	external bool
	lead     func() uint64
	log      *slog.Logger
	http     *http.Client
}

// New makes the service. lead gives the id of etcd's leader as this server knows it, 0 for none; it may be nil. external says that the members are not the servers' own.
func New(client *clientv3.Client, external bool, lead func() uint64, log *slog.Logger) *Service {
	if lead == nil {
		lead = func() uint64 { return 0 }
	}
	// Members are asked directly: a proxy is for what lies outside.
	direct := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: reachTimeout}
	return &Service{client: client, external: external, lead: lead, log: log, http: direct}
}

// Register puts the service onto a server that does not serve yet.
func (s *Service) Register(r grpc.ServiceRegistrar) { meshv1.RegisterMemberServiceServer(r, s) }

// ListMembers lists the members.
func (s *Service) ListMembers(ctx context.Context, _ *meshv1.ListMembersRequest) (*meshv1.ListMembersResponse, error) {
	list, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		m.PeerUrls = slices.DeleteFunc(slices.Clone(m.GetPeerUrls()), portless)
	}
	return &meshv1.ListMembersResponse{Members: list, External: s.external}, nil
}

// AddMember makes room for a member.
func (s *Service) AddMember(ctx context.Context, req *meshv1.AddMemberRequest) (*meshv1.AddMemberResponse, error) {
	if err := s.own("added"); err != nil {
		return nil, err
	}
	peer, err := validate(req)
	if err != nil {
		return nil, err
	}
	list, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	if err := mayAdd(list, req.GetServer(), peer); err != nil {
		return nil, err
	}
	var r *clientv3.MemberAddResponse
	err = settled(ctx, func(ctx context.Context) (err error) {
		r, err = s.client.MemberAddAsLearner(ctx, []string{peer})
		return err
	})
	if err != nil {
		return nil, refused("add a member", err)
	}
	s.log.WarnContext(ctx, "etcd member added; it has no vote before it has started and caught up", "member", req.GetServer(), "peer_url", peer, "id", hex(r.Member.ID))
	var cluster []string
	for _, m := range list {
		cluster = append(cluster, spec.ID(m.GetName())+"="+m.GetPeerUrls()[0])
	}
	return &meshv1.AddMemberResponse{
		Member:         member(r.Member, 0),
		InitialCluster: strings.Join(append(cluster, req.GetServer()+"="+peer), ","),
	}, nil
}

// RemoveMember removes a member.
func (s *Service) RemoveMember(ctx context.Context, req *meshv1.RemoveMemberRequest) (*meshv1.RemoveMemberResponse, error) {
	if err := s.own("removed"); err != nil {
		return nil, err
	}
	name, err := spec.ParseName(spec.Members, req.GetName())
	if err != nil {
		return nil, fault.Invalid(fault.Violation{Field: "name", Problem: err.Error()})
	}
	list, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(m *meshv1.Member) bool { return m.GetName() == name || m.GetId() == spec.ID(name) })
	if i < 0 {
		e := fault.NotFound(name)
		e.Message = fmt.Sprintf("there is no member %s; members are %s", spec.ID(name), names(list))
		return nil, e
	}
	gone := list[i]
	left := slices.Delete(slices.Clone(list), i, i+1)
	if err := mayRemove(gone, left, req.GetForce()); err != nil {
		return nil, err
	}
	var id uint64
	if _, err := fmt.Sscanf(gone.GetId(), "%x", &id); err != nil {
		return nil, fault.Internal(err, "the id of %s, %q, is not a number", name, gone.GetId())
	}
	err = settled(ctx, func(ctx context.Context) error {
		_, err := s.client.MemberRemove(ctx, id)
		return err
	})
	if err != nil && !errors.Is(err, rpctypes.ErrMemberNotFound) {
		return nil, refused("remove "+name, err)
	}
	s.log.WarnContext(ctx, "etcd member removed", "member", spec.ID(gone.GetName()), "id", gone.GetId(), "left", names(left))
	return &meshv1.RemoveMemberResponse{Removed: gone, Members: left}, nil
}

// settled makes a change. etcd refuses changes for five seconds after a member has come (its HealthInterval), so it is tried again for a little longer than that.
func settled(ctx context.Context, change func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	t := time.NewTicker(250 * time.Millisecond)
	defer t.Stop()
	for {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		err := change(call)
		cancel()
		if !errors.Is(err, rpctypes.ErrUnhealthy) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-t.C:
		}
	}
}

// own refuses to change a cluster that is not the servers'.
func (s *Service) own(verb string) error {
	if !s.external {
		return nil
	}
	return fault.New(codes.FailedPrecondition, meshv1.ErrorReason_STATE_CONFLICT, "", "no member was %s: this mesh uses an external etcd cluster (--etcd); change it with `etcdctl member`", verb)
}

// list gives the members, by name, those without a name last, each with whether it can be reached.
func (s *Service) list(ctx context.Context) ([]*meshv1.Member, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := s.client.MemberList(call)
	if err != nil {
		return nil, fault.New(codes.Unavailable, meshv1.ErrorReason_STORE_UNAVAILABLE, "", "cannot list the members: etcd does not answer, so most of them may be down; `probemesh get mesh` shows which of them answer").Because(err).Retry(time.Second)
	}
	lead := s.lead()
	list := make([]*meshv1.Member, len(r.Members))
	var asked sync.WaitGroup
	for i, m := range r.Members {
		list[i] = member(m, lead)
		if m.Name != "" {
			asked.Go(func() { list[i].Reachable = m.ID == r.Header.GetMemberId() || s.reachable(ctx, m.PeerURLs) })
		}
	}
	asked.Wait()
	slices.SortFunc(list, func(a, b *meshv1.Member) int {
		if a.GetStarted() != b.GetStarted() {
			return map[bool]int{true: -1, false: 1}[a.GetStarted()]
		}
		return cmp.Compare(a.GetName(), b.GetName())
	})
	return list, nil
}

func member(m *etcdserverpb.Member, lead uint64) *meshv1.Member {
	return &meshv1.Member{
		Name: spec.Name(spec.Members, cmp.Or(m.Name, hex(m.ID))), Id: hex(m.ID), PeerUrls: m.PeerURLs, Started: m.Name != "", Learner: m.IsLearner, Leader: lead != 0 && m.ID == lead,
	}
}

func hex(id uint64) string { return fmt.Sprintf("%x", id) }

// reachable asks a member for its version, at any of its URLs.
func (s *Service) reachable(ctx context.Context, urls []string) bool {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	for _, u := range urls {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(u, "/")+"/version", nil)
		if err != nil {
			continue
		}
		if resp, err := s.http.Do(req); err == nil {
			resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		}
	}
	return false
}

// refused is the fault for a change that etcd did not make.
func refused(what string, err error) error {
	for _, known := range []error{rpctypes.ErrUnhealthy, rpctypes.ErrMemberNotEnoughStarted, rpctypes.ErrTooManyLearners, rpctypes.ErrPeerURLExist, rpctypes.ErrMemberExist} {
		if errors.Is(err, known) {
			return fault.New(codes.FailedPrecondition, meshv1.ErrorReason_STATE_CONFLICT, "", "cannot %s: etcd refuses it (%s); bring the other members back first", what, rpctypes.ErrorDesc(known)).Because(err)
		}
	}
	return fault.New(codes.Unavailable, meshv1.ErrorReason_STORE_UNAVAILABLE, "", "cannot %s: etcd does not answer; list the members before you try again", what).Because(err).Retry(time.Second)
}

// validate checks what a user wrote, and gives the URL without a trailing slash.
func validate(req *meshv1.AddMemberRequest) (string, error) {
	var faults []fault.Violation
	if err := spec.CheckID("server", req.GetServer()); err != nil {
		faults = append(faults, fault.Violation{Field: "server", Problem: err.Error()})
	}
	peer := strings.TrimSuffix(req.GetPeerUrl(), "/")
	u, err := url.Parse(peer)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || u.Port() == "" || u.Port() == "0" || u.Path != "" || u.RawQuery != "" || u.User != nil {
		faults = append(faults, fault.Violation{Field: "peer_url", Problem: fmt.Sprintf("%q is not where a member can be reached; write http://HOST:PORT, for example http://10.0.0.3:2380", req.GetPeerUrl())})
	} else if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsUnspecified() {
		faults = append(faults, fault.Violation{Field: "peer_url", Problem: fmt.Sprintf("%q says on which addresses to listen, not where others reach it; write the machine's own address", req.GetPeerUrl())})
	}
	if faults != nil {
		return "", fault.Invalid(faults...)
	}
	return peer, nil
}

// mayAdd says why a member cannot be added.
func mayAdd(list []*meshv1.Member, server, peer string) error {
	for _, m := range list {
		switch {
		case m.GetName() == spec.Name(spec.Members, server):
			e := fault.Exists(m.GetName())
			e.Message = fmt.Sprintf("%s is a member already; to replace it, remove it first: probemesh member remove %s", server, server)
			return e
		case slices.Contains(m.GetPeerUrls(), peer):
			e := fault.Exists(m.GetName())
			e.Message = fmt.Sprintf("%s is the address of %s already; give each member its own", peer, m.GetName())
			return e
		case !m.GetStarted() || m.GetLearner():
			return conflict(m.GetName(), "%s (%s) is still joining; wait until it has, or remove it (probemesh member remove %s): one joins at a time", m.GetName(), strings.Join(m.GetPeerUrls(), ","), spec.ID(m.GetName()))
		case slices.ContainsFunc(m.GetPeerUrls(), portless):
			return conflict(m.GetName(), "%s stands alone: it listens for other members nowhere that they could know of; restart that server with --etcd-listen-peer http://ADDRESS:2380 first", m.GetName())
		case !usable(m.GetPeerUrls(), peer):
			return conflict(m.GetName(), "%s listens for other members at %s, where none of another machine can reach it; restart that server with --etcd-listen-peer http://ADDRESS:2380 first", m.GetName(),
				strings.Join(m.GetPeerUrls(), ","))
		}
	}
	return nil
}

// usable tells whether a member at peer could reach one at these URLs: not at port 0, and at loopback only from loopback.
func usable(urls []string, peer string) bool {
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil || u.Port() == "0" || u.Port() == "" || (loopback(s) && !loopback(peer)) {
			return false
		}
	}
	return len(urls) > 0
}

// portless tells whether the URL has port 0: the member listens somewhere, and has told nobody where.
func portless(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Port() == "0"
}

func loopback(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// mayRemove says why a member cannot be removed.
func mayRemove(gone *meshv1.Member, left []*meshv1.Member, force bool) error {
	voters, alive := 0, 0
	for _, m := range left {
		if m.GetLearner() || !m.GetStarted() {
			continue
		}
		voters++
		if m.GetReachable() {
			alive++
		}
	}
	switch {
	case gone.GetLearner() || !gone.GetStarted():
		return nil // it has no vote to lose
	case voters == 0:
		return conflict(gone.GetName(), "%s is the only member; nothing would be left of the mesh", gone.GetName())
	case alive <= voters/2:
		return conflict(gone.GetName(), "without %s, %d of %d members would be alive, and that is no majority: nothing could be decided any more; bring others back first", gone.GetName(), alive, voters)
	case gone.GetReachable() && !force:
		return conflict(gone.GetName(), "%s is alive, and removing it stops its server for good (%d members would be left, which survive the loss of %d); stop that server first, or use --force",
			gone.GetName(), voters, (voters-1)/2)
	}
	return nil
}

func conflict(name, format string, args ...any) error {
	return fault.New(codes.FailedPrecondition, meshv1.ErrorReason_STATE_CONFLICT, name, format, args...)
}

func names(list []*meshv1.Member) string {
	var all []string
	for _, m := range list {
		all = append(all, spec.ID(m.GetName()))
	}
	return strings.Join(all, ", ")
}
