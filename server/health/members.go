package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// memberTimeout is how long a member may take to answer: ten times what a far datacenter takes.
const memberTimeout = time.Second

// Cluster asks etcd for its members. Its methods may be called concurrently.
type Cluster struct {
	client *clientv3.Client
	// embedded tells that the client is that of a member in this process, which does not reach other members' client ports.
	embedded bool
	http     *http.Client
	// busy holds an element while etcd is asked.
	busy chan struct{}
}

// NewCluster makes one on the client, which stays the caller's to close. With embedded, the client is that of a member in this process, and other members are
// asked for their version on the port on which the members talk to each other; otherwise each is asked for its status on its client port.
func NewCluster(client *clientv3.Client, embedded bool) *Cluster {
	return &Cluster{client: client, embedded: embedded, busy: make(chan struct{}, 1), http: &http.Client{Timeout: memberTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Close gives idle connections back.
func (c *Cluster) Close() { c.http.CloseIdleConnections() }

// Members lists the members, by name, and etcd's alarms. It fails when the list itself cannot be had; a member that does not answer is one that is not healthy.
//
// It ends with ctx, even if a member in this process does not: one whose disk has failed holds its locks for ever, and heeds no context. What asked it then hangs until
// the process ends, and nothing else is asked meanwhile.
func (c *Cluster) Members(ctx context.Context) ([]Member, []string, error) {
	type answer struct {
		members []Member
		alarms  []string
		err     error
	}
	select {
	case c.busy <- struct{}{}:
	default:
		return nil, nil, errors.New("list etcd's members: etcd was asked before and has not answered")
	}
	answered := make(chan answer, 1)
	go func() {
		defer func() { <-c.busy }()
		members, alarms, err := c.members(ctx)
		answered <- answer{members, alarms, err}
	}()
	select {
	case a := <-answered:
		return a.members, a.alarms, a.err
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("list etcd's members: %w", ctx.Err())
	}
}

func (c *Cluster) members(ctx context.Context) ([]Member, []string, error) {
	// From the member's own copy: the list is wanted most when there is no quorum.
	r, err := c.client.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return nil, nil, fmt.Errorf("list etcd's members: %w", err)
	}
	members, alarms := make([]Member, len(r.Members)), make([][]string, len(r.Members))
	leaders := make([]uint64, len(r.Members))
	var wg sync.WaitGroup
	for i, m := range r.Members {
		members[i] = Member{ID: fmt.Sprintf("%016x", m.ID), Name: m.Name, Learner: m.IsLearner, PeerURL: first(m.PeerURLs)}
		wg.Go(func() { leaders[i], alarms[i] = c.ask(ctx, m, m.ID == r.Header.GetMemberId(), &members[i]) })
	}
	wg.Wait()
	for i, m := range r.Members {
		members[i].Leader = slices.Contains(leaders, m.ID)
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Name+a.ID, b.Name+b.ID) })
	all := slices.Concat(alarms...)
	slices.Sort(all)
	return members, slices.Compact(all), nil
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// ask fills in how a member is, and says whom it takes for the leader and what alarms it knows.
func (c *Cluster) ask(ctx context.Context, m *etcdserverpb.Member, here bool, into *Member) (leader uint64, alarms []string) {
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	if c.embedded && !here {
		err := c.version(ctx, m)
		into.Healthy, into.Error = err == nil, text(err)
		return 0, nil
	}
	endpoint := first(m.ClientURLs)
	s, err := c.client.Status(ctx, endpoint)
	if err != nil {
		into.Error = text(err)
		return 0, nil
	}
	into.Healthy, into.DBSize = true, s.DbSize
	for _, e := range s.Errors {
		switch {
		case strings.Contains(e, "NOSPACE"), strings.Contains(e, "CORRUPT"):
			alarms = append(alarms, alarmOf(e))
		case strings.Contains(e, "no leader"):
			into.Error = "it has no leader" // so it answers, but can decide nothing
		default:
			into.Healthy, into.Error = false, e
		}
	}
	return s.Leader, alarms
}

// alarmOf is the kind of an alarm that a member's status tells of.
func alarmOf(e string) string {
	for _, kind := range []string{"NOSPACE", "CORRUPT"} {
		if strings.Contains(e, kind) {
			return kind
		}
	}
	return e
}

// version asks a member for its version where the members talk to each other: the answer shows that the process works.
func (c *Cluster) version(ctx context.Context, m *etcdserverpb.Member) error {
	if len(m.PeerURLs) == 0 {
		return errors.New("it has no peer URL")
	}
	var errs []error
	for _, u := range m.PeerURLs {
		err := c.get(ctx, strings.TrimSuffix(u, "/")+"/version")
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *Cluster) get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4096))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
