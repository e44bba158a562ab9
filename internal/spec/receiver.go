package spec

import (
	"net/url"
	"strings"
	"time"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of a receiver, as receiver.proto documents them.
const (
	MinGiveUpAfter    = time.Minute
	MaxGiveUpAfter    = 7 * 24 * time.Hour
	MinWebhookTimeout = time.Second
	MaxWebhookTimeout = 60 * time.Second
	maxWebhookHeaders = 16
	maxSigningKey     = 1 << 10
)

// ValidateReceiver lists every fault of a receiver; the list is empty when it is valid. path is as in [ValidateCheck].
func ValidateReceiver(r *meshv1.Receiver, path string) []fault.Violation {
	f := &faults{path: path}
	name(f, Receivers, r.GetName())
	displayName(f, r.GetDisplayName())
	duration(f, "give_up_after", r.GetGiveUpAfter(), DefaultGiveUpAfter, MinGiveUpAfter, MaxGiveUpAfter)
	w := r.GetWebhook()
	if w == nil {
		f.add("webhook", "is missing; a receiver needs it, for example webhook: {url: https://ops.example.com/hook}")
		return f.list
	}
	webhookURL(f, w.Url)
	headers(f, "webhook.headers", w.Headers, maxWebhookHeaders)
	for _, k := range sortedKeys(w.Headers) {
		switch strings.ToLower(k) {
		case "content-length", "content-type", "transfer-encoding", "connection", "upgrade", "trailer", "te", "idempotency-key", "probemesh-signature":
			f.add(element("webhook.headers", k), "is set by the server itself; remove it")
		}
	}
	duration(f, "webhook.timeout", w.Timeout, DefaultWebhookTimeout, MinWebhookTimeout, MaxWebhookTimeout)
	caPEM(f, "webhook.ca_pem", w.CaPem)
	bounded(f, "webhook.signing_key", len(w.SigningKey), maxSigningKey)
	return f.list
}

// webhookURL checks the address of a webhook.
func webhookURL(f *faults, text string) {
	const form = "write it as https://host[:port]/path"
	u, err := url.Parse(text)
	switch {
	case text == "":
		f.add("webhook.url", "is missing; %s", form)
	case len(text) > maxURI:
		f.add("webhook.url", "has %d bytes, which is more than %d; shorten it", len(text), maxURI)
	case err != nil:
		f.add("webhook.url", "cannot be parsed (%s); %s", urlProblem(err), form)
	case u.Scheme != "http" && u.Scheme != "https":
		f.add("webhook.url", "%q does not begin with http:// or https://; %s", clip(text), form)
	case u.Hostname() == "":
		f.add("webhook.url", "has no host; %s", form)
	case u.User != nil:
		f.add("webhook.url", "has user information (before the @), which is refused; set the header Authorization")
	default:
		if problem := hostProblem(u.Hostname()); problem != "" {
			f.add("webhook.url", "%s", problem)
		}
	}
}
