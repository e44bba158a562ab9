package spec_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// check is a valid check, changed.
func check(change func(*meshv1.Check)) *meshv1.Check {
	c := &meshv1.Check{Name: "checks/shop", Uri: "https://shop.example.com/health"}
	if change != nil {
		change(c)
	}
	return c
}

// field is a form of one field, lines a header of one line.
func field(name string) []*meshv1.FormField { return []*meshv1.FormField{{Name: name}} }

func lines(name, value string) []*meshv1.HttpHeader {
	return []*meshv1.HttpHeader{{Name: name, Value: value}}
}

// many are expectations.
func many(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = "true"
	}
	return out
}

func TestValidChecksHaveNoFaults(t *testing.T) {
	for name, change := range map[string]func(*meshv1.Check){
		"bare":    nil,
		"bare id": func(c *meshv1.Check) { c.Name = "shop"; c.Receivers = []string{"ops"} },
		"tcp":     func(c *meshv1.Check) { c.Uri = "tcp://db.example.com:5432"; c.Tcp = &meshv1.TcpProbe{Send: "x"} },
		"limits low": func(c *meshv1.Check) {
			c.Interval = durationpb.New(time.Second)
			c.Timeout = durationpb.New(100 * time.Millisecond)
		},
		"limits high": func(c *meshv1.Check) {
			c.Interval = durationpb.New(24 * time.Hour)
			c.Timeout = durationpb.New(time.Minute)
		},
		"short interval": func(c *meshv1.Check) { c.Interval = durationpb.New(2 * time.Second) },
		"quorum alone":   func(c *meshv1.Check) { c.Quorum = 3 },
		"one datacenter": func(c *meshv1.Check) { c.Datacenters = []string{"fra"} },
		"quorum of two of two datacenters": func(c *meshv1.Check) {
			c.Probers, c.Quorum, c.Datacenters = 2, 2, []string{"fra", "ams"}
		},
		"output only": func(c *meshv1.Check) {
			c.Status = &meshv1.CheckStatus{Check: strings.Repeat("x", 20<<10)}
			c.CreateTime = timestamppb.Now()
		},
		"http": func(c *meshv1.Check) {
			c.Http = &meshv1.HttpProbe{Method: "PUT", Headers: map[string]string{"Host": "a.example.com:81", "X-A": "b"}, MaxRedirects: 20,
				BodyLimit: 10 << 20, ProxyUrl: "http://proxy:3128", Expect: []string{"response.status == 200", "response.json.ok"}}
		},
		"grpcs": func(c *meshv1.Check) {
			c.Uri = "grpcs://[2001:db8::1]:443/pkg.Service"
			c.Grpc = &meshv1.GrpcProbe{Tls: &meshv1.TlsConfig{MinVersion: "1.3", ServerName: "a.example.com"}, Metadata: map[string]string{"x-a-bin": "\xc3\xa9"}}
		},
	} {
		if list := spec.ValidateCheck(check(change), ""); len(list) != 0 {
			t.Errorf("%s: %v", name, list)
		}
	}
}

func TestEachFaultOfACheckIsNamedWithItsFieldAndItsCure(t *testing.T) {
	for _, c := range []struct {
		change  func(*meshv1.Check)
		field   string
		problem string
	}{
		{func(c *meshv1.Check) { c.Name = "" }, "name", "is missing; write checks/<id>"},
		{func(c *meshv1.Check) { c.Name = "Shop" }, "name", `"Shop" is not a name of checks`},
		{func(c *meshv1.Check) { c.DisplayName = strings.Repeat("é", 201) }, "display_name", "has 201 characters"},
		{func(c *meshv1.Check) { c.Uri = "" }, "uri", "is missing"},
		{func(c *meshv1.Check) { c.Uri = "ftp://a" }, "uri", `scheme "ftp" is not known; write tls://host:21 with tls.starttls ftp`},
		{func(c *meshv1.Check) { c.Interval = durationpb.New(500 * time.Millisecond) }, "interval", "500ms is shorter than 1s; raise it"},
		{func(c *meshv1.Check) { c.Interval = durationpb.New(25 * time.Hour) }, "interval", "25h is longer than 24h; lower it"},
		{func(c *meshv1.Check) { c.Interval = &durationpb.Duration{Seconds: 1, Nanos: -1} }, "interval", "is not a duration"},
		{func(c *meshv1.Check) { c.Timeout = durationpb.New(61 * time.Second) }, "timeout", "1m1s is longer than 1m; lower it"},
		{func(c *meshv1.Check) { c.Timeout = durationpb.New(time.Millisecond) }, "timeout", "1ms is shorter than 100ms; raise it"},
		{func(c *meshv1.Check) {
			c.Interval, c.Timeout = durationpb.New(5*time.Second), durationpb.New(6*time.Second)
		}, "timeout", "6s is longer than the interval of 5s"},
		{func(c *meshv1.Check) { c.Probers = 51 }, "probers", "51 is not 1 to 50"},
		{func(c *meshv1.Check) { c.Probers, c.Quorum = 2, 3 }, "quorum", "3 is more than the 2 probers"},
		{func(c *meshv1.Check) { c.Quorum = 4 }, "quorum", "set probers to 4 or more"},
		{func(c *meshv1.Check) { c.Quorum = -1 }, "quorum", "-1 is not 1 or more"},
		{func(c *meshv1.Check) { c.Labels = map[string]string{"Team": "x"} }, `labels["Team"]`, "the key is not"},
		{func(c *meshv1.Check) { c.Labels = map[string]string{"team": strings.Repeat("x", 201)} }, `labels["team"]`, "has 201 bytes"},
		{func(c *meshv1.Check) { c.Receivers = []string{"ops", "receivers/ops"} }, "receivers[1]", "is listed twice"},
		{func(c *meshv1.Check) { c.Receivers = []string{"checks/ops"} }, "receivers[0]", "is not a name of receivers"},
		{func(c *meshv1.Check) { c.Datacenters = []string{"fra", "fra"} }, "datacenters[1]", "is listed twice"},
		{func(c *meshv1.Check) { c.Datacenters = []string{"Fra"} }, "datacenters[0]", "is not a name of a datacenter"},
		{func(c *meshv1.Check) { c.Probers, c.Datacenters = 5, []string{"fra"} }, "datacenters", "lists 1, but a quorum of 3 counts each datacenter once"},
		{func(c *meshv1.Check) { c.Distinct = []string{"a b"} }, "distinct[0]", "is not a label key"},
		{func(c *meshv1.Check) { c.Tcp = &meshv1.TcpProbe{} }, "tcp", "is only for a tcp or unix URI, and this one is https"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Method: "GE T"} }, "http.method", "is not an HTTP method"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Method: "get"} }, "http.method", "write GET"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Headers: map[string]string{"A:": "b"}} }, `http.headers["A:"]`, "is not an HTTP header name"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Headers: map[string]string{"A": "b\n"}} }, `http.headers["A"]`, "control characters"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Headers: map[string]string{"A": "1", "a": "2"}} }, `http.headers["a"]`, `the same header as "A"`},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Headers: map[string]string{"Content-Length": "1"}} }, `http.headers["Content-Length"]`, "by the prober itself"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Body: strings.Repeat("x", 8193)} }, "http.body", "8193 bytes"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{BearerToken: "t", BasicAuth: &meshv1.BasicAuth{}} }, "http.bearer_token", "keep one"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{BasicAuth: &meshv1.BasicAuth{Username: "a:b"}} }, "http.basic_auth.username", "colon"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Form: field("a"), Body: "x"} }, "http.form", "a request has one body"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Form: field("")} }, "http.form[0].name", "has a name"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{BodyFile: "x"} }, "http.body_file", "probemesh apply"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Graphql: &meshv1.GraphQl{}} }, "http.graphql.query", "is missing"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{HeaderLines: lines("A:", "b")} }, "http.header_lines[0].name", "is not an HTTP header name"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{HeaderLines: lines("Host", "b")} }, "http.header_lines[0]", "under headers"},
		{func(c *meshv1.Check) {
			c.Http = &meshv1.HttpProbe{HeaderLines: lines("Authorization", "b"), DigestAuth: &meshv1.DigestAuth{Username: "u"}}
		}, "http.header_lines[0]", "besides digest_auth"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{RequestCompression: meshv1.HttpProbe_GZIP} }, "http.request_compression", "without a body"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Compression: 99} }, "http.compression", "GZIP, DEFLATE, BR, ZSTD"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{AcceptedVersions: []string{"HTTP/2"}} }, "http.accepted_versions[0]", "write one of 1.0, 1.1, 2, 3"},
		{func(c *meshv1.Check) {
			c.Http = &meshv1.HttpProbe{Version: meshv1.HttpProbe_HTTP2, AcceptedVersions: []string{"1.1"}}
		}, "http.accepted_versions", "does not have 2"},
		{func(c *meshv1.Check) {
			c.Uri, c.Http = "http://a.example.com/", &meshv1.HttpProbe{Version: meshv1.HttpProbe_HTTP3}
		}, "http.version", "needs an https URI"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Version: meshv1.HttpProbe_HTTP3, KeepAlive: true} }, "http.keep_alive", "does not go with version HTTP3"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{FailIfTls: true, FailIfNotTls: true} }, "http.fail_if_tls", "always fails"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{ResolveTo: "192.0.2.1:0"} }, "http.resolve_to", "is not a port"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{ResolveTo: "a b"} }, "http.resolve_to", "192.0.2.7:8443"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{ResolveTo: "a:1", ProxyUrl: "http://p:1"} }, "http.resolve_to", "the proxy that connects"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{ProxyHeaders: lines("A", "b")} }, "http.proxy_headers", "without proxy_url"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{DigestAuth: &meshv1.DigestAuth{Username: "a:b"}} }, "http.digest_auth.username", "colon"},
		{func(c *meshv1.Check) {
			c.Http = &meshv1.HttpProbe{Oauth2: &meshv1.OAuth2ClientCredentials{ClientId: "a"}}
		}, "http.oauth2.token_url", "is missing"},
		{func(c *meshv1.Check) {
			c.Http = &meshv1.HttpProbe{Oauth2: &meshv1.OAuth2ClientCredentials{ClientId: "a", TokenUrl: "auth.example.com"}}
		}, "http.oauth2.token_url", "is not an http or https URI"},
		{func(c *meshv1.Check) {
			c.Http = &meshv1.HttpProbe{Oauth2: &meshv1.OAuth2ClientCredentials{ClientId: "a", TokenUrl: "http://a/", Parameters: map[string]string{"scope": "x"}}}
		}, `http.oauth2.parameters["scope"]`, "by the prober itself"},
		{func(c *meshv1.Check) {
			c.Http = &meshv1.HttpProbe{AwsSigv4: &meshv1.AwsSigV4{AccessKeyId: "a", SecretAccessKey: "b", Region: "c"}}
		}, "http.aws_sigv4.service", "is missing"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Method: "PUT", Steps: []*meshv1.HttpStep{{}}} }, "http.method", "move it to the step"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Steps: make([]*meshv1.HttpStep, 21)} }, "http.steps", "has 21 entries"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Steps: []*meshv1.HttpStep{{Name: "2"}, {}}} }, "http.steps[1].name", "rename one"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Steps: []*meshv1.HttpStep{{Url: "ftp://a/"}}} }, "http.steps[0].url", "neither http nor https"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Steps: []*meshv1.HttpStep{{Url: "/${a}"}}} }, "http.steps[0].url", "${a} is not captured by any step before"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Steps: []*meshv1.HttpStep{{Body: "${a"}}} }, "http.steps[0].body", "is not closed"},
		{func(c *meshv1.Check) {
			c.Http = &meshv1.HttpProbe{Steps: []*meshv1.HttpStep{{Captures: []*meshv1.Capture{{Name: "a", Regexp: "("}}}}}
		}, "http.steps[0].captures[0].regexp", "cannot be compiled"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Steps: []*meshv1.HttpStep{{Expect: []string{"1"}}}} }, "http.steps[0].expect[0]", "not bool"},
		{func(c *meshv1.Check) {
			c.Http = &meshv1.HttpProbe{Expect: []string{"true"}, Steps: []*meshv1.HttpStep{{Expect: many(10)}, {Expect: many(10)}}}
		}, "http.steps", "have 21 expectations"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{MaxRedirects: 21} }, "http.max_redirects", "21 is not 1 to 20"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{IpFamily: 9} }, "http.ip_family", "9 is not known"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Version: 9} }, "http.version", "HTTP1, HTTP2"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{ProxyUrl: "socks5://a:1"} }, "http.proxy_url", "http://host:port"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{BodyLimit: 11 << 20} }, "http.body_limit", "is not 0 to"},
		{func(c *meshv1.Check) {
			c.Http = &meshv1.HttpProbe{Expect: []string{"response.status == 200", "response.staus"}}
		}, "http.expect[1]", `column 9: response has no field "staus"`},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Expect: make([]string, 21)} }, "http.expect", "has 21 entries"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Expect: []string{strings.Repeat(" ", 1001)}} }, "http.expect[0]", "has 1001 characters"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{MinVersion: "1.4"}} }, "http.tls.min_version", `"1.4" is not a version`},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: "x"}} }, "http.tls.ca_pem", "holds no PEM certificate"},
		{func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{ClientKeyPem: "x"}} }, "http.tls.client_key_pem", "without client_certificate_pem"},
		{func(c *meshv1.Check) {
			c.Http = &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{ClientKeyPem: "x", ClientCertificatePem: "y"}}
		}, "http.tls.client_certificate_pem", "does not go with"},
		{func(c *meshv1.Check) {
			c.Uri = "http://192.0.2.1/"
			c.Http = &meshv1.HttpProbe{IpFamily: meshv1.IpFamily_IPV6}
		}, "http.ip_family", "does not go with the address"},
		{func(c *meshv1.Check) { c.Uri = "tcp://a:1"; c.Tcp = &meshv1.TcpProbe{ReadLimit: 2 << 20} }, "tcp.read_limit", "is not 1 to"},
		{func(c *meshv1.Check) { c.Uri = "dns:///a"; c.Dns = &meshv1.DnsProbe{Rcodes: []string{"noerror"}} }, "dns.rcodes[0]", "is not a response code"},
		{func(c *meshv1.Check) { c.Uri = "icmp://a"; c.Icmp = &meshv1.IcmpProbe{Count: 101} }, "icmp.count", "101 is not 1 to 100"},
		{func(c *meshv1.Check) {
			c.Uri = "icmp://a"
			c.Icmp = &meshv1.IcmpProbe{PayloadSize: proto.Int32(65_001)}
		}, "icmp.payload_size", "is not 0 to"},
		{func(c *meshv1.Check) { c.Uri = "grpc://a:1"; c.Grpc = &meshv1.GrpcProbe{Tls: &meshv1.TlsConfig{}} }, "grpc.tls", "is only for a grpcs URI"},
		{func(c *meshv1.Check) {
			c.Uri = "grpc://a:1"
			c.Grpc = &meshv1.GrpcProbe{Metadata: map[string]string{"A": "b"}}
		}, `grpc.metadata["A"]`, "lower-case"},
		{func(c *meshv1.Check) { c.Uri = "grpc://a:1"; c.Grpc = &meshv1.GrpcProbe{Authority: "a/b"} }, "grpc.authority", "is not a host"},
	} {
		changed := check(c.change)
		found := false
		list := spec.ValidateCheck(changed, "checks[3]")
		for _, v := range list {
			found = found || v.Field == "checks[3]."+c.field && strings.Contains(v.Problem, c.problem)
		}
		if !found {
			t.Errorf("no fault of %s says %q; got %v", c.field, c.problem, list)
		}
		if len(list) != 1 && c.field != "http.expect" {
			t.Errorf("%s: %d faults instead of one: %v", c.field, len(list), list)
		}
	}
}

func TestAllFaultsAreListedAtOnce(t *testing.T) {
	c := check(func(c *meshv1.Check) {
		c.Uri = "tcp://user@host/path"
		c.Interval = durationpb.New(0)
		c.Probers, c.Quorum = 2, 5
		c.Http = &meshv1.HttpProbe{Expect: []string{"a", "b"}}
	})
	list := spec.ValidateCheck(c, "")
	if len(list) != 8 {
		t.Errorf("%d faults, want 8 (user, port, path, interval, quorum, block, two expressions):\n%v", len(list), list)
	}
}

func TestACheckOver16KiBIsRefused(t *testing.T) {
	c := check(func(c *meshv1.Check) {
		c.Annotations = map[string]string{}
		for i := range 9 {
			c.Annotations[fmt.Sprint("a", i)] = strings.Repeat("x", 2<<10)
		}
	})
	list := spec.ValidateCheck(c, "checks[0]")
	if len(list) != 1 || list[0].Field != "checks[0]" || !strings.Contains(list[0].Problem, "more than 16384") {
		t.Errorf("got %v", list)
	}
}

func TestEachFaultOfAReceiverIsNamed(t *testing.T) {
	good := func() *meshv1.Receiver {
		return &meshv1.Receiver{Name: "receivers/ops", Webhook: &meshv1.Webhook{Url: "https://ops.example.com/hook?x=y"}}
	}
	if list := spec.ValidateReceiver(good(), ""); len(list) != 0 {
		t.Errorf("a good receiver: %v", list)
	}
	for _, c := range []struct {
		change         func(*meshv1.Receiver)
		field, problem string
	}{
		{func(r *meshv1.Receiver) { r.Webhook = nil }, "webhook", "is missing"},
		{func(r *meshv1.Receiver) { r.Webhook.Url = "" }, "webhook.url", "is missing"},
		{func(r *meshv1.Receiver) { r.Webhook.Url = "ops.example.com" }, "webhook.url", "does not begin with http://"},
		{func(r *meshv1.Receiver) { r.Webhook.Url = "http://u:p@a/" }, "webhook.url", "set the header Authorization"},
		{func(r *meshv1.Receiver) { r.Webhook.Timeout = durationpb.New(time.Millisecond) }, "webhook.timeout", "shorter than 1s"},
		{func(r *meshv1.Receiver) { r.GiveUpAfter = durationpb.New(8 * 24 * time.Hour) }, "give_up_after", "192h is longer than 168h"},
		{func(r *meshv1.Receiver) { r.Webhook.Headers = map[string]string{"idempotency-key": "x"} }, `webhook.headers["idempotency-key"]`, "by the server itself"},
		{func(r *meshv1.Receiver) { r.Webhook.CaPem = "x" }, "webhook.ca_pem", "holds no PEM"},
	} {
		r := good()
		c.change(r)
		list := spec.ValidateReceiver(r, "receivers[0]")
		if len(list) != 1 || list[0].Field != "receivers[0]."+c.field || !strings.Contains(list[0].Problem, c.problem) {
			t.Errorf("%s: %s: got %v", c.field, c.problem, list)
		}
	}
}

func TestNormalizeCompletesNamesAndClearsWhatTheServerFillsIn(t *testing.T) {
	c := &meshv1.Check{Name: "shop", Receivers: []string{"ops", "receivers/dev", "No"}, Revision: 4, Etag: "4",
		CreateTime: timestamppb.Now(), UpdateTime: timestamppb.Now(), Status: &meshv1.CheckStatus{}}
	spec.Normalize(c)
	want := &meshv1.Check{Name: "checks/shop", Receivers: []string{"receivers/ops", "receivers/dev", "No"}, Etag: "4"}
	if !proto.Equal(c, want) {
		t.Errorf("got %v", c)
	}
	r := &meshv1.Receiver{Name: "ops", Owed: 3, LastError: "x", CreateTime: timestamppb.Now(), Etag: "1"}
	spec.NormalizeReceiver(r)
	if !proto.Equal(r, &meshv1.Receiver{Name: "receivers/ops", Etag: "1"}) {
		t.Errorf("got %v", r)
	}
}

func TestEffectiveResolvesEveryDefault(t *testing.T) {
	c := check(nil)
	e := spec.Effective(c, 5)
	if e.Interval.AsDuration() != time.Minute || e.Timeout.AsDuration() != 10*time.Second || e.Probers != 3 || e.Quorum != 2 {
		t.Errorf("got %v", e)
	}
	if h := e.Http; h.Method != "GET" || !h.GetFollowRedirects() || h.MaxRedirects != 10 || h.BodyLimit != 1<<20 || h.Tls.MinVersion != "1.2" {
		t.Errorf("got %v", e.Http)
	}
	if c.Http != nil || c.Interval != nil {
		t.Error("the original was changed")
	}
	for _, v := range []struct {
		probers, quorum    int32
		datacenters        int
		wantProb, wantQuor int32
	}{{0, 0, 0, 1, 1}, {0, 0, 1, 1, 1}, {0, 0, 2, 2, 2}, {5, 0, 1, 5, 3}, {5, 4, 9, 5, 4}, {0, 0, 9, 3, 2}} {
		e := spec.Effective(check(func(c *meshv1.Check) { c.Probers, c.Quorum = v.probers, v.quorum }), v.datacenters)
		if e.Probers != v.wantProb || e.Quorum != v.wantQuor {
			t.Errorf("%+v: got %d, %d", v, e.Probers, e.Quorum)
		}
	}
	if e := spec.Effective(check(func(c *meshv1.Check) { c.Interval = durationpb.New(2 * time.Second) }), 1); e.Timeout.AsDuration() != 2*time.Second {
		t.Errorf("timeout %v", e.Timeout.AsDuration())
	}
	for _, uri := range []string{"tcp://a:1", "tls://a", "dns:///a", "icmp://a", "grpc://a:1", "grpcs://a:1"} {
		c := check(func(c *meshv1.Check) { c.Uri = uri })
		if list := spec.ValidateCheck(spec.Effective(c, 3), ""); len(list) > 0 {
			t.Errorf("%s: with its defaults it is not valid: %v", uri, list)
		}
	}
}

func TestAnAssignmentHoldsWhatAProberNeedsOnly(t *testing.T) {
	c := check(func(c *meshv1.Check) {
		c.Labels, c.Receivers, c.Annotations = map[string]string{"a": "b"}, []string{"receivers/ops"}, map[string]string{"a": "b"}
		c.DisplayName, c.Revision, c.Etag, c.Status = "Shop", 7, "7", &meshv1.CheckStatus{}
		c.Interval = durationpb.New(time.Second)
	})
	want := &meshv1.Check{Name: "checks/shop", Uri: "https://shop.example.com/health", Revision: 7, Interval: durationpb.New(time.Second)}
	if a := spec.ForAssignment(c); !proto.Equal(a, want) {
		t.Errorf("got %v", a)
	}
}
