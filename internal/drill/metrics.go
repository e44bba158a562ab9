package drill

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/probemesh/probemesh/internal/localmesh"
)

// bare is a resource name without its collection: "a-1" of "probers/a-1".
func bare(name string) string {
	_, after, found := strings.Cut(name, "/")
	if !found {
		return name
	}
	return after
}

// Metric is the sum of a server's series of that name whose labels contain all of those given (as `key="value"`), read from /metrics. A series that does not exist
// counts as 0.
func (m *Mesh) Metric(ctx context.Context, s *localmesh.Member, name string, labels ...string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.HTTP+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("read the metrics of %s: %w", s, err)
	}
	defer resp.Body.Close()
	sum := 0.0
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if v, ok := sample(lines.Text(), name, labels); ok {
			sum += v
		}
	}
	return sum, lines.Err()
}

// sample reads a line of the Prometheus text format, if it is of that name and has all those labels.
func sample(line, name string, labels []string) (float64, bool) {
	rest, ok := strings.CutPrefix(line, name)
	if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
		return 0, false
	}
	for _, l := range labels {
		if !strings.Contains(rest, l) {
			return 0, false
		}
	}
	value := rest[strings.LastIndexByte(rest, '}')+1:]
	v, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
	return v, err == nil
}

// Fenced is how many writes of a server etcd has refused since it started because its reign was over.
func (m *Mesh) Fenced(ctx context.Context, s *localmesh.Member) (float64, error) {
	return m.Metric(ctx, s, "probemesh_store_fenced_total")
}
