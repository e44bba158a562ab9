package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/compression"
)

// store is one opening of the TSDB, with the engine that queries it.
type store struct {
	db         *tsdb.DB
	engine     *promql.Engine
	parser     parser.Parser
	appendable storage.Appendable
	registry   *prometheus.Registry // the store's own figures, while it is open
	life       context.Context      // ends when the store is about to be closed; questions under way end with it
	end        context.CancelFunc
}

// openStore opens the store in c.Dir. What is damaged is set aside; setAside is called for each directory moved. An error is one that setting aside would not
// help against: the directory is in use, not writable, or the disk is full.
func openStore(c Config, d Dependencies, log *slog.Logger, setAside func()) (*store, error) {
	stamp := time.Now().UTC().Format("20060102T150405.000Z")
	// Blocks are looked at first: a TSDB that fails over one leaves goroutines and files behind.
	if err := setBlocksAside(c.Dir, stamp, log, setAside); err != nil {
		return nil, err
	}
	s, err := tryOpen(c, d, log)
	if err == nil || !damaged(err) {
		return s, err
	}
	to := c.Dir + ".set-aside-" + stamp + "-whole"
	if moveErr := os.Rename(c.Dir, to); moveErr != nil {
		return nil, errors.Join(err, moveErr)
	}
	setAside()
	log.Error("the history does not open and was set aside; an empty one takes its place", "directory", c.Dir, "set_aside", to, "err", err)
	return tryOpen(c, d, log)
}

// tryOpen opens the store as it is.
func tryOpen(c Config, d Dependencies, log *slog.Logger) (*store, error) {
	if err := os.MkdirAll(c.Dir, 0o750); err != nil {
		return nil, err
	}
	o := tsdb.DefaultOptions()
	o.RetentionDuration = c.Retention.Milliseconds()
	o.MaxBytes = c.MaxBytes
	o.OutOfOrderTimeWindow = max(0, c.OutOfOrder.Milliseconds())
	o.WALCompression = compression.Snappy
	// Blocks grow to a tenth of the retention, so that what is dropped at once is at most that much.
	o.MaxBlockDuration = max(tsdb.DefaultBlockDuration, min(c.Retention/10, 31*day).Milliseconds())
	s := &store{registry: prometheus.NewRegistry(), parser: parser.NewParser(parser.Options{})}
	var err error
	if s.db, err = tsdb.Open(c.Dir, slog.New(warnings{log.Handler()}), s.registry, o, nil); err != nil {
		return nil, err
	}
	s.engine = promql.NewEngine(promql.EngineOpts{
		Reg:                      s.registry,
		MaxSamples:               c.MaxSamples,
		Timeout:                  c.QueryTimeout,
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		Parser:                   s.parser,
	})
	s.appendable = s.db
	if d.Wrap != nil {
		s.appendable = d.Wrap(s.db)
	}
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

// close ends the questions under way and closes the store. Nobody may use it any more.
func (s *store) close() error {
	s.end()
	return errors.Join(s.engine.Close(), s.db.Close())
}

// damaged tells whether an error of opening the store may be one of its content.
func damaged(err error) bool {
	for _, environment := range []error{
		fs.ErrPermission, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EWOULDBLOCK,
	} {
		if errors.Is(err, environment) {
			return false
		}
	}
	return true
}

// setBlocksAside moves those blocks that cannot be opened to a directory beside dir.
func setBlocksAside(dir, stamp string, log *slog.Logger, setAside func()) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err != nil || !e.IsDir() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		fault := checkBlock(path)
		if fault == nil || !damaged(fault) {
			continue
		}
		to := filepath.Join(dir+".set-aside-"+stamp, e.Name())
		if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
			return err
		}
		if err := os.Rename(path, to); err != nil {
			return err
		}
		setAside()
		log.Error("a block of the history is damaged and was set aside; its stretch of time is missing", "block", path, "set_aside", to, "err", fault)
	}
	return nil
}

// checkBlock tells what keeps a block from being opened.
func checkBlock(path string) error {
	b, err := tsdb.OpenBlock(nil, path, nil, tsdb.DefaultPostingsDecoderFactory)
	if err != nil {
		return fmt.Errorf("open block: %w", err)
	}
	return b.Close()
}

// warnings lets only warnings and errors of the store through: what it says of its daily work is no news to an operator.
type warnings struct{ slog.Handler }

// Enabled is part of slog.Handler.
func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}

// WithAttrs is part of slog.Handler.
func (w warnings) WithAttrs(a []slog.Attr) slog.Handler { return warnings{w.Handler.WithAttrs(a)} }

// WithGroup is part of slog.Handler.
func (w warnings) WithGroup(name string) slog.Handler { return warnings{w.Handler.WithGroup(name)} }
