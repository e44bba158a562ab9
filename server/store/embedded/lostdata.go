package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// clientless is what a member says of where clients reach it when none can. It says something, because that is how a member tells the others that it has been started.
const clientless = "http://127.0.0.1:0"

// askTimeout bounds the question to one other member, answerMax its answer.
const (
	askTimeout = time.Second
	answerMax  = 1 << 20
)

// peerMember is a member as etcd tells other members of it, at /members.
type peerMember struct {
	Name       string   `json:"name"`
	ClientURLs []string `json:"clientURLs"`
}

// checkLostData refuses a member that has been part of its cluster and has no data any more. Such a member must not take its place again: it has forgotten for what it
// voted, so that the cluster could lose what it had agreed on; and etcd itself ends the process with a panic when the first message comes.
func checkLostData(ctx context.Context, cfg Config) error {
	if _, err := os.Stat(filepath.Join(cfg.Dir, "member")); !errors.Is(err, os.ErrNotExist) {
		return nil // it has data, or what is wrong with them shows later
	}
	for _, pair := range strings.Split(cfg.InitialCluster, ",") {
		name, url, _ := strings.Cut(pair, "=")
		if name == cfg.Name {
			continue
		}
		list, err := askMembers(ctx, url)
		if err != nil {
			continue // the others may be starting too; one that answers is enough
		}
		for _, m := range list {
			// While a cluster is formed, all members have their names from its configuration; one that is added gets its name when it starts.
			if m.Name == cfg.Name && (len(m.ClientURLs) > 0 || cfg.ClusterState == "existing") {
				return fmt.Errorf("%s is a member of the etcd cluster already, as %s says, but its data are not in %s; a member that has lost its data cannot come back as itself: bring the data back, or "+
					"replace it: `probemesh member remove %s`, then `probemesh member add %s ADDRESS` at another server, and start it as that says, on an empty data directory",
					cfg.Name, name, cfg.Dir, cfg.Name, cfg.Name)
			}
		}
	}
	return nil
}

func askMembers(ctx context.Context, url string) ([]peerMember, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+"/members", nil)
	if err != nil {
		return nil, err
	}
	direct := &http.Transport{DisableKeepAlives: true} // a proxy is for what lies outside
	resp, err := direct.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", resp.Status)
	}
	var list []peerMember
	err = json.NewDecoder(io.LimitReader(resp.Body, answerMax)).Decode(&list)
	return list, err
}
