// Package embedded runs an etcd member inside the server's process: alone, so that one command runs a whole mesh, or as one of several that form
// a cluster across datacenters.
//
// The member's client is in-process: no socket is needed for it, and none is opened for clients unless Config.ListenClient asks for one. A lone
// member opens a loopback port for peers, which etcd insists on and nobody uses. Everything that etcd lets one set and that matters is set here,
// explicitly, with its reason:
//
//   - tick 50 ms, election timeout 500 ms, half of etcd's own defaults: when the machine of both the mesh's and etcd's leader dies, nothing can be decided before etcd has
//     another leader, which then takes 0.5 to 1 s (rarely 2 s) instead of 1 to 2 s. A false alarm is cheap, since a candidate asks first whether others miss the leader too
//     (PreVote), and an election stops writes for a tenth of a second. Where the members are more than 50 ms of round trip apart, or the disks take
//     longer than a quarter of a second, raise both, on all members alike: a tick about the round trip, an election ten of them.
//   - compaction of changes older than ten minutes (etcd's default is never): followers that were away longer begin again with a snapshot.
//   - quota 8 GiB: a hundred thousand checks take 60 MB, twenty thousand closed incidents a few hundred.
//   - progress notifications every minute: a follower resumes near where it was, even of a quiet mesh.
//
// A data directory is used by one process at a time; a second one is refused with a sentence, as is a damaged directory. etcd registers its metrics
// in Prometheus' default registry, which nothing of probemesh serves.
package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"

	"github.com/probemesh/probemesh/server/store"
)

// closeTimeout is how long Close waits for the member: etcd gives open requests seven seconds and idle peer connections one.
const closeTimeout = 12 * time.Second

// Member is a running member. Its methods may be called concurrently.
type Member struct {
	cfg    Config
	etcd   *embed.Etcd
	client *clientv3.Client
	lock   *fileutil.LockedFile
	fail   *failure
	// closing: Close has been called.
	closing atomic.Bool
}

// Start starts a member and waits until the cluster has a leader, which a lone member has in less than a second and one of several when most of
// them run. It gives up when ctx ends. The caller closes the member.
func Start(ctx context.Context, cfg Config) (*Member, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if err := checkLostData(ctx, cfg); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	fail := newFailure()
	e, err := start(cfg, fail)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if err := waitReady(ctx, e, cfg.Log); err != nil {
		closeEtcd(e)
		return nil, errors.Join(err, lock.Close())
	}
	fail.started.Store(true)
	m := &Member{cfg: cfg, etcd: e, client: v3client.New(e.Server), lock: lock, fail: fail}
	return m, nil
}

// lockDir makes the data directory and locks it: etcd itself would wait for ever for another process to let it go.
func lockDir(dir string) (*fileutil.LockedFile, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the etcd data directory: %w; choose another with --data or mend its permissions", err)
	}
	lock, err := fileutil.TryLockFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	switch {
	case errors.Is(err, fileutil.ErrLocked):
		return nil, fmt.Errorf("the etcd data directory %s is used by another process; stop that one, or choose another directory with --data", dir)
	case err != nil:
		return nil, fmt.Errorf("cannot lock the etcd data directory %s: %w; mend its permissions", dir, err)
	}
	return lock, nil
}

// start starts etcd. What etcd reports by panicking, such as a damaged file, becomes an error.
func start(cfg Config, fail *failure) (e *embed.Etcd, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = damaged(cfg.Dir, fmt.Errorf("%v", p))
		}
	}()
	if err := probeDatabase(cfg.Dir); err != nil {
		return nil, damaged(cfg.Dir, err)
	}
	e, err = embed.StartEtcd(cfg.embed(fail))
	if err != nil {
		var op interface{ Timeout() bool } // a listener's error
		if errors.As(err, &op) {
			return nil, fmt.Errorf("the embedded etcd cannot listen: %w; choose other addresses", err)
		}
		return nil, damaged(cfg.Dir, err)
	}
	return e, nil
}

// probeDatabase opens an existing database for a moment: etcd opens it on a goroutine of its own, where a damaged one ends the process.
func probeDatabase(dir string) (err error) {
	path := filepath.Join(dir, "member", "snap", "db")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: 5 * time.Second})
	if err != nil {
		return fmt.Errorf("its database: %w", err)
	}
	return db.Close()
}

func damaged(dir string, err error) error {
	if strings.Contains(err.Error(), "permanently removed") {
		return fmt.Errorf("the etcd member in %s was removed from its cluster; to come back, let `probemesh member add` make room for it and start it on an empty data directory", dir)
	}
	return fmt.Errorf("the embedded etcd cannot start on %s: %w; if its files are damaged, restore a backup, or move the directory away: then a lone server "+
		"starts anew and its configuration is applied again; one of several is replaced (`probemesh member remove`, then `member add`) and gets everything from the others", dir, err)
}

// waitReady waits for a leader, and says every few seconds that it still does.
func waitReady(ctx context.Context, e *embed.Etcd, log *slog.Logger) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	begun := time.Now()
	for {
		select {
		case <-e.Server.ReadyNotify():
			return nil
		case err := <-e.Err():
			return fmt.Errorf("the embedded etcd stopped while it was starting: %w", err)
		case <-e.Server.StopNotify():
			return errors.New("the embedded etcd stopped while it was starting; its log says why")
		case <-ctx.Done():
			return fmt.Errorf("the embedded etcd found no leader in %s: %w; most members of its cluster must run", time.Since(begun).Round(time.Second), ctx.Err())
		case <-tick.C:
			log.InfoContext(ctx, "waiting for most members of the etcd cluster", "waited", time.Since(begun).Round(time.Second))
		}
	}
}

// Client is the in-process client; it is the member's to close. Watches through it wait, rather than fail, while the cluster has no leader.
func (m *Member) Client() *clientv3.Client { return m.client }

// Endpoints are the addresses, host:port, at which the member listens for clients of other processes; none unless Config.ListenClient is set.
func (m *Member) Endpoints() []string {
	var out []string
	for _, l := range m.etcd.Clients {
		out = append(out, l.Addr().String())
	}
	return out
}

// ClusterLeader is the id of the member that leads the cluster, as this one knows it; 0 when none does.
func (m *Member) ClusterLeader() uint64 { return uint64(m.etcd.Server.Leader()) }

// Tend settles this member in its cluster, until ctx ends or there is nothing to settle: one that joins as a learner is given its vote once it has caught up, and one
// that was started with another address for the others tells them so. It logs what keeps it waiting, and tries again every half second.
func (m *Member) Tend(ctx context.Context) {
	t := time.NewTicker(500 * time.Millisecond)
	defer t.Stop()
	for waited := 0; ; waited++ {
		settled, err := m.settle(ctx)
		if settled || ctx.Err() != nil {
			return
		}
		if waited%20 == 1 {
			m.cfg.Log.InfoContext(ctx, "the etcd member has not joined in full yet, trying again", "member", m.cfg.Name, "learner", m.etcd.Server.IsLearner(), "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (m *Member) settle(ctx context.Context) (settled bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	id := uint64(m.etcd.Server.MemberID())
	if m.etcd.Server.IsLearner() {
		if _, err := m.etcd.Server.PromoteMember(ctx, id); err != nil {
			return false, err
		}
		m.cfg.Log.InfoContext(ctx, "the etcd member has caught up and votes from now on", "member", m.cfg.Name)
	}
	list, err := m.client.MemberList(ctx)
	if err != nil {
		return false, err
	}
	if m.cfg.AdvertisePeer == loneAddress {
		if len(list.Members) > 1 {
			m.cfg.Log.ErrorContext(ctx, "this etcd member has others and listens where they cannot reach it: start the server with --etcd-listen-peer", "member", m.cfg.Name, "members", len(list.Members))
		}
		return true, nil
	}
	for _, x := range list.Members {
		if x.ID != id || slices.Equal(x.PeerURLs, []string{m.cfg.AdvertisePeer}) {
			continue
		}
		if _, err := m.client.MemberUpdate(ctx, id, []string{m.cfg.AdvertisePeer}); err != nil {
			return false, err
		}
		m.cfg.Log.WarnContext(ctx, "the etcd member has a new address for the others", "member", m.cfg.Name, "before", x.PeerURLs, "now", m.cfg.AdvertisePeer)
	}
	return true, nil
}

// PeerAddresses are the addresses, host:port, at which the member listens for the other members.
func (m *Member) PeerAddresses() []string {
	var out []string
	for _, l := range m.etcd.Peers {
		out = append(out, l.Addr().String())
	}
	return out
}

// Wait returns when ctx ends or the member has failed, and then with the reason; ErrNoSpace when its disk is full. A member that failed for want of space need not be
// closed, and Close would use up its time.
func (m *Member) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-m.etcd.Err():
		return fmt.Errorf("the embedded etcd failed: %w", err)
	case err := <-m.fail.reason:
		return fmt.Errorf("the embedded etcd failed: %w", err)
	case <-m.etcd.Server.StopNotify():
		if m.closing.Load() {
			return errors.New("the embedded etcd was closed")
		}
		// By itself it stops for nothing else. It may have heard so from the others' refusals, before the entry of the log that removes it: then it still counts itself among them.
		return fmt.Errorf("this server's etcd member, %s, was removed from its cluster; to come back, let `probemesh member add` make room for it and start it on an empty data directory", m.cfg.Name)
	}
}

// Close stops the member, its client first. It takes a second with peers, and at most twelve; a member that has not stopped by then is left to
// the end of the process, and its directory stays locked. Close is to be called once.
func (m *Member) Close() error {
	m.closing.Store(true)
	clientErr := m.client.Close()
	if errors.Is(clientErr, context.Canceled) {
		clientErr = nil // how a client of a closed context says that it is closed
	}
	if !closeEtcd(m.etcd) {
		return errors.Join(clientErr, fmt.Errorf("the embedded etcd has not stopped after %s", closeTimeout))
	}
	return errors.Join(clientErr, m.lock.Close())
}

// closeEtcd is false when etcd did not stop in time.
func closeEtcd(e *embed.Etcd) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Close()
	}()
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

// parse is for URLs that Validate has passed.
func parse(s string) []url.URL {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil {
		panic("embedded: URL not validated: " + err.Error())
	}
	return []url.URL{*u}
}

func (c Config) embed(fail *failure) *embed.Config {
	e := embed.NewConfig()
	e.Name, e.Dir = c.Name, c.Dir
	e.TickMs, e.ElectionMs = uint(c.Tick.Milliseconds()), uint(c.Election.Milliseconds())
	e.InitialElectionTickAdvance, e.PreVote, e.StrictReconfigCheck = true, true, true
	e.AutoCompactionMode, e.AutoCompactionRetention = embed.CompactorModePeriodic, c.CompactAfter.String()
	e.QuotaBackendBytes = c.QuotaBytes
	e.MaxTxnOps, e.MaxRequestBytes = 128, 1536<<10
	e.SnapshotCount, e.SnapshotCatchUpEntries = 10_000, 5_000
	e.WatchProgressNotifyInterval = time.Minute
	e.WarningApplyDuration = 500 * time.Millisecond
	e.WarningUnaryRequestDuration = time.Second
	e.EnableGRPCGateway, e.EnablePprof = false, false
	e.Metrics = "basic"

	e.ListenClientUrls, e.AdvertiseClientUrls = parse(c.ListenClient), parse(cmp.Or(c.ListenClient, clientless))
	e.ListenPeerUrls, e.AdvertisePeerUrls = parse(c.ListenPeer), parse(c.AdvertisePeer)
	e.InitialCluster, e.InitialClusterToken, e.ClusterState = c.InitialCluster, "probemesh", c.ClusterState
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(store.ZapLogger(c.Log).WithOptions(zap.WithFatalHook(fail)))
	return e
}
