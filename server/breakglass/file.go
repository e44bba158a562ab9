package breakglass

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/probemesh/probemesh/internal/configfile"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Load reads the receivers of a break-glass file: `receivers:` as in any configuration file, and nothing else. The error names every fault with its line, and what
// would be right.
func Load(path string) ([]*meshv1.Receiver, error) {
	c, err := configfile.Load([]string{path}, nil)
	if err != nil {
		return nil, err
	}
	switch {
	case path == configfile.Stdin:
		return nil, errors.New("a break-glass file is read again while the server runs; name a file, not -")
	case len(c.Config.GetChecks()) > 0:
		return nil, fmt.Errorf("%s: checks do not belong into a break-glass file, which has receivers only; apply them with `probemesh apply`", path)
	case len(c.Config.GetReceivers()) == 0:
		return nil, fmt.Errorf("%s: there are no receivers in it; write a list under `receivers:`", path)
	}
	return c.Config.GetReceivers(), nil
}

// stamp identifies the contents of a file without reading it.
type stamp struct {
	size int64
	mod  time.Time
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info.Size(), info.ModTime()}
}

// reloadEvery is how often the file is looked at.
const reloadEvery = 5 * time.Second

// reload reads the file again when it has changed. One that is not right changes nothing.
func (g *Glass) reload(now time.Time) {
	if g.cfg.File == "" || now.Sub(g.looked) < reloadEvery {
		return
	}
	g.looked = now
	s := stampOf(g.cfg.File)
	if s == g.stamp {
		return
	}
	g.stamp = s
	receivers, err := Load(g.cfg.File)
	if err != nil {
		g.log.Error("the break-glass file is not right any more; the receivers it had stay", "file", g.cfg.File, "err", err)
		return
	}
	g.mu.Lock()
	g.receivers = receivers
	g.mu.Unlock()
	g.log.Info("break-glass file read again", "file", g.cfg.File, "receivers", len(receivers))
}
