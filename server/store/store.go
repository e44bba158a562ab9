package store

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of etcd, each with room for what the request carries besides its values.
const (
	// maxRequestBytes is the most one transaction may carry; etcd's own limit is 1.5 MiB.
	maxRequestBytes = 1400 << 10
	// maxOps is the most operations in one transaction; etcd's own limit is 128.
	maxOps = 120
)

// Options are what a store may be told. The zero value is good.
type Options struct {
	// Timeout bounds each call to etcd, besides the caller's context. Default 5s: longer than an etcd election at default ticks.
	Timeout time.Duration
	// VerifyEvery is how often Follow lists all keys again and compares them with what it handed over. Default 5m. Negative: never.
	VerifyEvery time.Duration
	// PageSize is how many keys one range request asks for. Default 500: at 16 KiB a check, 8 MiB.
	PageSize int
	// Log gets what went wrong in the background. Default: nothing is logged.
	Log *slog.Logger
	// Meter gets the store's metrics. Default: none.
	Meter metric.Meter
}

// Store keeps the mesh's state in etcd. Make one with New.
type Store struct {
	client   *clientv3.Client
	o        Options
	log      *slog.Logger
	m        *metrics
	requests requestLease
	latency  latency
	pending  pending
	doubts   doubts
}

// New makes a store on the client, which stays the caller's to close.
func New(c *clientv3.Client, o Options) *Store {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	if o.VerifyEvery == 0 {
		o.VerifyEvery = 5 * time.Minute
	}
	if o.PageSize <= 0 {
		o.PageSize = 500
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Meter == nil {
		o.Meter = noop.Meter{}
	}
	return &Store{client: c, o: o, log: o.Log, m: newMetrics(o.Meter)}
}

// Fence identifies a reign: the leader's key and the revision at which it was created. A write with a fence changes nothing once the key
// is gone or another's.
type Fence struct {
	// Key is the full key of the leader.
	Key string
	// CreateRevision is the etcd revision at which the reign began.
	CreateRevision int64
	// Term is the number of the reign, for messages only.
	Term int64
}

func (f Fence) compare() clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(f.Key), "=", f.CreateRevision)
}

// Versioned is a value with the revisions of its key.
type Versioned[T any] struct {
	// Value is the caller's own copy.
	Value T
	// ModRevision is the etcd revision of its last change.
	ModRevision int64
	// CreateRevision is the etcd revision at which the key was created.
	CreateRevision int64
}

// Ready tells whether etcd answers a linearizable read now.
func (s *Store) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	if _, err := s.client.Get(ctx, TermKey, clientv3.WithKeysOnly()); err != nil {
		return readFault("reach the store", err)
	}
	return nil
}

// get reads one key; a nil answer means that there is none.
func (s *Store) get(ctx context.Context, key, what string) (*mvccpb.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	start := time.Now()
	r, err := s.client.Get(ctx, key)
	s.m.observe(ctx, "get", start, err)
	if err != nil {
		return nil, readFault(what, err)
	}
	if len(r.Kvs) == 0 {
		return nil, nil
	}
	return r.Kvs[0], nil
}

// page is a range of keys to read, consistent at one revision.
type page struct {
	prefix   string
	after    string // keys above prefix+after, or all
	limit    int    // 0: all
	rev      int64  // 0: now
	descend  bool   // newest (highest) keys first; `after` then bounds from above
	keysOnly bool
}

// scan calls each for every key of the page, in order, and returns the revision at which they were read.
func (s *Store) scan(ctx context.Context, p page, what string, each func(*mvccpb.KeyValue)) (int64, error) {
	from, to := p.prefix, clientv3.GetPrefixRangeEnd(p.prefix)
	if p.after != "" && p.descend {
		to = p.prefix + p.after
	} else if p.after != "" {
		from = p.prefix + p.after + "\x00"
	}
	order := clientv3.SortAscend
	if p.descend {
		order = clientv3.SortDescend
	}
	rev, left := p.rev, p.limit
	for {
		n := s.o.PageSize
		if p.limit > 0 && left < n {
			n = left
		}
		r, err := s.rangeOnce(ctx, from, what, clientv3.WithRange(to), clientv3.WithLimit(int64(n)), clientv3.WithRev(rev),
			clientv3.WithSort(clientv3.SortByKey, order), keysOnly(p.keysOnly))
		if err != nil {
			return 0, err
		}
		if rev == 0 {
			rev = r.Header.Revision
		}
		for _, kv := range r.Kvs {
			each(kv)
		}
		left -= len(r.Kvs)
		if !r.More || len(r.Kvs) == 0 || (p.limit > 0 && left <= 0) {
			return rev, nil
		}
		last := string(r.Kvs[len(r.Kvs)-1].Key)
		if p.descend {
			to = last
		} else {
			from = last + "\x00"
		}
	}
}

func (s *Store) rangeOnce(ctx context.Context, from, what string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	start := time.Now()
	r, err := s.client.Get(ctx, from, opts...)
	s.m.observe(ctx, "range", start, err)
	if err != nil {
		return nil, readFault(what, err)
	}
	return r, nil
}

func keysOnly(yes bool) clientv3.OpOption {
	if yes {
		return clientv3.WithKeysOnly()
	}
	return func(*clientv3.Op) {}
}

// txn is a transaction that changes something.
type txn struct {
	what string // completes "cannot ..."
	ifs  []clientv3.Cmp
	then []clientv3.Op
	els  []clientv3.Op
	// reign: it is a write of the leader, under its fence.
	reign bool
}

// commit runs the transaction once. An error is a fault; it matches ErrOutcomeUnknown when the transaction may have happened.
func (s *Store) commit(ctx context.Context, t txn) (*clientv3.TxnResponse, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	start := time.Now()
	if t.reign {
		defer s.pending.begin(start)()
	}
	r, err := s.client.Txn(ctx).If(t.ifs...).Then(t.then...).Else(t.els...).Commit()
	s.m.observe(ctx, "txn", start, err)
	s.latency.add(time.Now(), time.Since(start))
	if err != nil {
		return nil, writeFault(t.what, err)
	}
	return r, nil
}

// check refuses what etcd would refuse.
func (t txn) check() error {
	if n := max(len(t.ifs), len(t.then), len(t.els)); n > maxOps {
		return fault.New(codes.ResourceExhausted, meshv1.ErrorReason_LIMIT_EXCEEDED, "",
			"cannot %s: %d operations in one transaction, at most %d are possible; split it", t.what, n, maxOps)
	}
	size := 0
	for _, op := range t.then {
		size += len(op.KeyBytes()) + len(op.ValueBytes())
	}
	if size > maxRequestBytes {
		return fault.New(codes.ResourceExhausted, meshv1.ErrorReason_LIMIT_EXCEEDED, "",
			"cannot %s: it takes %d bytes, at most %d are possible in one transaction; shorten or split it", t.what, size, maxRequestBytes)
	}
	return nil
}

// settle repeats a write whose outcome is unknown, while ctx and a few attempts last. The write must be one that recognises its own work.
func settle(ctx context.Context, write func() error) error {
	var err error
	for range 3 {
		err = write()
		if !errors.Is(err, ErrOutcomeUnknown) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// encode is the one encoding of values: deterministic, so that a repeated write recognises its own value.
func encode(m proto.Message) (string, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return "", fault.Internal(err, "cannot encode %s: %v", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return string(b), nil
}

func decode(kv *mvccpb.KeyValue, into proto.Message) error {
	if err := proto.Unmarshal(kv.Value, into); err != nil {
		return fault.Internal(err, "the value of %s in etcd is not a %s; it was damaged or written by something else",
			kv.Key, into.ProtoReflect().Descriptor().FullName())
	}
	return nil
}

func etagOf(modRevision int64) string { return strconv.FormatInt(modRevision, 10) }
