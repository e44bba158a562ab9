package notify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

var update = flag.Bool("update", false, "write the goldens anew")

func TestBodyIsTheGoldenWithEveryDocumentedField(t *testing.T) {
	b, err := body(sample().notification)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"incident", "transition", "check", "uri", "verdict", "reason", "start_time", "end_time", "evidence", "summary", "trace_id"} {
		if _, ok := fields[f]; !ok {
			t.Errorf("the body lacks %s", f)
		}
	}
	var pretty strings.Builder
	enc := json.NewEncoder(&pretty)
	enc.SetIndent("", "  ")
	if err := enc.Encode(fields); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/body.json"
	if *update {
		if err := os.WriteFile(golden, []byte(pretty.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if pretty.String() != string(want) {
		t.Errorf("the body differs from %s (-update accepts it):\n%s", golden, pretty.String())
	}
}

func TestEmptyNotificationStillHasEveryField(t *testing.T) {
	b, err := body(&meshv1.Notification{})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"incident":"","transition":"TRANSITION_UNSPECIFIED","check":"","uri":"","verdict":"VERDICT_UNSPECIFIED","reason":"REASON_UNSPECIFIED",` +
		`"start_time":null,"end_time":null,"evidence":[],"summary":"","trace_id":"","receiver":"","decide_time":null,"labels":{},"annotations":{},` +
		`"display_name":"","attempt":0,"break_glass":false,"break_glass_key":"","affected_checks":[],"affected_count":0,"kind":"KIND_UNSPECIFIED","shared":null}`
	if string(b) != want {
		t.Errorf("body %s\nwant %s", b, want)
	}
}

func TestSignatureIsOverTheBodyAsSent(t *testing.T) {
	e := listen(t, httptest.NewServer, nil)
	hooks(t).send(t.Context(), to(e.URL, func(w *meshv1.Webhook) { w.SigningKey = "secret" }), sample())
	got := e.requests()[0]
	h := hmac.New(sha256.New, []byte("secret"))
	h.Write(got.body)
	if want := "sha256=" + hex.EncodeToString(h.Sum(nil)); got.header.Get("Probemesh-Signature") != want {
		t.Errorf("signature %q, want %q", got.header.Get("Probemesh-Signature"), want)
	}
}
