package clients

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

const deploy = "../../../deploy"

// documents reads every document of a YAML file; keys that are there twice are an error.
func documents(t *testing.T, path string) []map[string]any {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []map[string]any
	for d := yaml.NewDecoder(bytes.NewReader(b)); ; {
		var doc map[string]any
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, doc)
	}
}

func TestEveryYAMLFileUnderDeployParses(t *testing.T) {
	files := 0
	err := filepath.WalkDir(deploy, func(path string, e fs.DirEntry, err error) error {
		if err == nil && (filepath.Ext(path) == ".yaml" || filepath.Ext(path) == ".yml") {
			files++
			for i, doc := range documents(t, path) {
				kind, _ := doc["kind"].(string)
				if filepath.Base(filepath.Dir(path)) == "kubernetes" && (kind == "" || doc["apiVersion"] == nil) {
					t.Errorf("%s: document %d has no apiVersion or kind", path, i)
				}
			}
		}
		return err
	})
	if err != nil || files < 6 {
		t.Errorf("%d files, %v", files, err)
	}
	listed := documents(t, filepath.Join(deploy, "kubernetes", "kustomization.yaml"))[0]["resources"].([]any)
	there, _ := filepath.Glob(filepath.Join(deploy, "kubernetes", "*.yaml"))
	if len(listed) != len(there)-1 {
		t.Errorf("kustomization.yaml lists %v, the directory has %v", listed, there)
	}
}

// setting is one way in which deploy/ starts a process.
type setting struct {
	where string
	args  []string
	env   map[string]string
}

func TestEverySettingUnderDeployIsAcceptedByTheBinary(t *testing.T) {
	m := running(t)
	settings := append(systemdSettings(t), kubernetesSettings(t)...)
	settings = append(settings, dockerSetting(t))
	if len(settings) != 5 {
		t.Fatalf("%d settings, want two of systemd, two of Kubernetes and one of Docker", len(settings))
	}
	for _, s := range settings {
		help := execute(t, m.root, ownEnvironment(), m.binary, s.args[0], "--help").stdout
		env := []string{}
		for name, value := range s.env {
			flag := "--" + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "PROBEMESH_"), "_", "-"))
			if !regexp.MustCompile(`(?m)^ +` + flag + `( |$)`).MatchString(help) {
				t.Errorf("%s sets %s, but %s has no flag %s", s.where, name, s.args[0], flag)
			}
			if name == "PROBEMESH_DATA" {
				value = filepath.Join(t.TempDir(), "data")
			}
			env = append(env, name+"="+value)
		}
		if s.env["PROBEMESH_DATA"] == "" {
			t.Errorf("%s does not say where the data are", s.where)
		}
		out := execute(t, m.root, ownEnvironment(env...), m.binary, append(s.args, "--validate")...)
		if out.code != 0 || !strings.Contains(out.stdout, "the configuration is valid") {
			t.Errorf("%s: %v with %v is refused with %d: %s%s", s.where, s.args, env, out.code, out.stdout, out.stderr)
		}
	}
}

// systemdSettings reads the units, with the example of the environment file of each.
func systemdSettings(t *testing.T) []setting {
	t.Helper()
	var all []setting
	units, _ := filepath.Glob(filepath.Join(deploy, "systemd", "*.service"))
	for _, unit := range units {
		s := setting{where: unit, env: map[string]string{}}
		for _, line := range lines(t, unit) {
			key, value, _ := strings.Cut(line, "=")
			switch key {
			case "ExecStart":
				s.args = strings.Fields(value)[1:]
			case "Environment":
				name, v, _ := strings.Cut(value, "=")
				s.env[name] = v
			case "EnvironmentFile":
				for _, l := range lines(t, filepath.Join(deploy, "systemd", filepath.Base(value))) {
					if name, v, ok := strings.Cut(l, "="); ok && !strings.HasPrefix(l, "#") {
						s.env[name] = v
					}
				}
			}
		}
		all = append(all, s)
	}
	return all
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []string
	for s := bufio.NewScanner(f); s.Scan(); {
		all = append(all, s.Text())
	}
	return all
}

// kubernetesSettings reads the containers, with references to variables replaced as Kubernetes does.
func kubernetesSettings(t *testing.T) []setting {
	t.Helper()
	var all []setting
	for _, file := range []string{"server.yaml", "prober.yaml"} {
		for _, doc := range documents(t, filepath.Join(deploy, "kubernetes", file)) {
			if doc["kind"] != "StatefulSet" {
				continue
			}
			b, _ := json.Marshal(doc)
			var set struct {
				Metadata struct{ Name string }
				Spec     struct {
					Template struct {
						Spec struct {
							Containers []struct {
								Args []string
								Env  []struct {
									Name, Value string
									ValueFrom   *struct{ FieldRef struct{ FieldPath string } }
								}
							}
						}
					}
				}
			}
			if err := json.Unmarshal(b, &set); err != nil {
				t.Fatal(err)
			}
			c := set.Spec.Template.Spec.Containers[0]
			s := setting{where: file, args: c.Args, env: map[string]string{}}
			for _, e := range c.Env {
				if e.ValueFrom != nil && e.ValueFrom.FieldRef.FieldPath == "metadata.name" {
					e.Value = set.Metadata.Name + "-0"
				}
				for name, value := range s.env { // only variables that come before are replaced
					e.Value = strings.ReplaceAll(e.Value, "$("+name+")", value)
				}
				if strings.Contains(e.Value, "$(") {
					t.Errorf("%s: %s refers to a variable that is not set before: %s", file, e.Name, e.Value)
				}
				s.env[e.Name] = e.Value
			}
			all = append(all, s)
		}
	}
	return all
}

// dockerSetting reads what the image starts with.
func dockerSetting(t *testing.T) setting {
	t.Helper()
	path := filepath.Join(deploy, "docker", "Dockerfile")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	s := setting{where: path, env: map[string]string{}}
	cmd := regexp.MustCompile(`(?m)^CMD (\[.*\])$`).FindStringSubmatch(text)
	if cmd == nil || json.Unmarshal([]byte(cmd[1]), &s.args) != nil {
		t.Fatalf("%s has no CMD as a list", path)
	}
	for _, e := range regexp.MustCompile(`(PROBEMESH_[A-Z_]+)=(\S+)`).FindAllStringSubmatch(text, -1) {
		s.env[e[1]] = e[2]
	}
	if data := s.env["PROBEMESH_DATA"]; !strings.Contains(text, "VOLUME "+data+"\n") {
		t.Errorf("%s keeps its data in %s, which is no volume", path, data)
	}
	return s
}

// instruments are the names of all metrics in the source: a counter is on the page only once there was something to count.
func instruments(t *testing.T, root string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	literal := regexp.MustCompile(`"(probemesh_[a-z_]+)"`)
	for _, tree := range []string{"server", "prober", "internal/rpc", "internal/telemetry"} {
		err := filepath.WalkDir(filepath.Join(root, tree), func(path string, e fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			for _, m := range literal.FindAllSubmatch(b, -1) {
				names[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// metricNames are the metrics that a PromQL expression reads.
func metricNames(t *testing.T, expr string) []string {
	t.Helper()
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	var names []string
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			names = append(names, v.Name)
		}
		return nil
	})
	return names
}

func TestAlertRulesReadMetricsThatTheMeshExports(t *testing.T) {
	m := running(t)
	page, err := m.fetch("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	known, rules := instruments(t, m.root), 0
	b, err := os.ReadFile(filepath.Join(deploy, "prometheus", "probemesh.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(false)
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	for _, r := range file.Groups[0].Rules {
		rules++
		if r.Alert == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" {
			t.Errorf("a rule lacks its name, severity or summary: %+v", r)
		}
		for _, name := range metricNames(t, r.Expr) {
			base := strings.TrimSuffix(name, "_bucket")
			onPage := strings.Contains(page, "\n"+name+"{") || strings.Contains(page, "\n"+name+" ")
			// Gauges are always there; counters and histograms of rare events must at least be known to the source.
			rare := strings.HasSuffix(name, "_total") || base != name
			if name != "up" && !(onPage && known[base]) && !(rare && known[base]) {
				t.Errorf("%s reads %s, which /metrics does not have", r.Alert, name)
			}
		}
	}
	if rules < 10 {
		t.Errorf("only %d rules", rules)
	}
}

// Every panel is asked of the server's own Prometheus-compatible API, as Grafana would, and must show something.
func TestEveryPanelOfTheDashboardShowsData(t *testing.T) {
	c := callerOf(t)
	target := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") }))
	defer target.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: target.Certificate().Raw})
	c.call("CheckService/Apply", object{"checks": []object{{"name": "checks/dashboard", "uri": target.URL, "interval": "1s", "timeout": "1s", "http": object{"tls": object{"ca_pem": string(ca)}}}}})
	defer c.call("CheckService/DeleteCheck", object{"name": "checks/dashboard"})
	c.await("StatusService/GetStatus", object{"check": "checks/dashboard"}, func(a map[string]any) bool { return a["verdict"] == "UP" })

	b, err := os.ReadFile(filepath.Join(deploy, "grafana", "probemesh.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		UID    string
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	var ids []int
	for _, p := range dashboard.Panels {
		ids = append(ids, p.ID)
		for _, target := range p.Targets {
			expr := strings.NewReplacer("$check", "dashboard", "$datacenter", ".*", "$__range", "5m").Replace(target.Expr)
			c.eventually(p.Title, func() bool {
				body, err := c.m.fetch("/api/v1/query?query=" + url.QueryEscape(expr))
				return err == nil && strings.Contains(body, `"status":"success"`) && strings.Contains(body, `"value":[`)
			})
		}
	}
	if slices.Sort(ids); len(slices.Compact(ids)) != len(dashboard.Panels) || len(ids) < 5 {
		t.Errorf("panels need distinct ids, there are %v", ids)
	}
}

// The dashboard about the mesh itself asks the Prometheus that scrapes the servers: its metrics must be on their page, or known to the source where they come with
// what they tell of.
func TestTheDashboardOfTheMeshReadsMetricsThatTheMeshExports(t *testing.T) {
	m := running(t)
	// Its members are on the page with the second look at the mesh, a second after the first.
	page, err := m.fetch("/metrics")
	for end := time.Now().Add(time.Minute); err == nil && !strings.Contains(page, "\nprobemesh_etcd_member_healthy{") && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
		page, err = m.fetch("/metrics")
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(deploy, "grafana", "probemesh-mesh.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	// A lone server hears no other one, and a mesh without conditions has no series that say since when.
	rare := []string{"probemesh_server_heard", "probemesh_mesh_condition_since_seconds"}
	known, asked := instruments(t, m.root), 0
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			for _, name := range metricNames(t, target.Expr) {
				asked++
				if !known[name] || !strings.Contains(page, "\n"+name) && !slices.Contains(rare, name) {
					t.Errorf("%s reads %s, which /metrics does not have", p.Title, name)
				}
			}
		}
	}
	if asked < 7 {
		t.Errorf("only %d metrics are read", asked)
	}
}
