package cli

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/nearest"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/internal/version"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// explain turns an error of a call into one for people, with every violation on its own line. It keeps the error as the cause.
func (a *app) explain(err error) error {
	e, ok := fault.From(err)
	if !ok {
		return &failure{code: ExitServer, message: err.Error(), cause: err}
	}
	return &failure{code: ExitServer, message: a.sentence(e), cause: err}
}

func (a *app) sentence(e *fault.Error) string {
	if e.Reason == meshv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		switch e.Code {
		case codes.Unavailable:
			return a.unreachable(e.Message)
		case codes.DeadlineExceeded:
			return a.late(e.Message)
		case codes.Unimplemented:
			return "the server at " + a.server + " does not know this call; it may be older than this probemesh (" + version.Version + "): upgrade it, or ask another with --server"
		}
	}
	msg := e.Error()
	if len(e.Violations) == 1 && e.Violations[0].Problem == e.Message {
		msg = e.Message // said once is enough
	}
	switch e.Reason {
	case meshv1.ErrorReason_NO_LEADER:
		msg += "\nAn election takes a few seconds at most; try again, or wait longer with --timeout."
	case meshv1.ErrorReason_RESOURCE_NOT_FOUND:
		if collection, id, ok := strings.Cut(e.Metadata["name"], "/"); ok {
			msg += a.meant(collection, id)
			if !strings.HasSuffix(msg, "?") {
				msg += ";"
			}
			msg += " `probemesh get " + collection + "` lists what there is"
		}
	}
	return msg
}

// meant guesses what a name that does not exist was meant to be, from what there is; empty when nothing is near, or the server does not say within a second.
func (a *app) meant(collection, id string) string {
	kinds := resources()
	i := slices.IndexFunc(kinds, func(r *resource) bool { return r.plural == collection })
	if i < 0 {
		return ""
	}
	c, err := a.connect()
	if err != nil {
		return ""
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if collection == spec.Incidents { // no two names of these are near each other, but people have the check in mind
		list, err := c.incidents.ListIncidents(ctx, &meshv1.ListIncidentsRequest{Filter: fmt.Sprintf("check = %q", id), PageSize: 1})
		if err != nil || len(list.GetIncidents()) == 0 {
			return ""
		}
		return fmt.Sprintf("; the newest incident of the check %s is %s", id, spec.ID(list.GetIncidents()[0].GetName()))
	}
	response, err := kinds[i].page(ctx, c, "", "")
	if err != nil {
		return ""
	}
	var ids []string
	for _, m := range kinds[i].items(response) {
		ids = append(ids, spec.ID(nameField(m)))
	}
	return nearest.Hint(id, ids)
}

// unreachable is said when there is no connection.
func (a *app) unreachable(detail string) string {
	problem := dialProblem(detail)
	if !strings.Contains(a.server, ":") {
		problem += "; it has no port, so 443 was tried: servers listen at 7700 unless told otherwise"
	}
	return "cannot reach a server at " + a.server + ": " + problem + `
  choose another with --server HOST:PORT or PROBEMESH_SERVER
  start one here with: probemesh up`
}

// late is said when the answer did not come in time; while connecting that means much the same as unreachable.
func (a *app) late(detail string) string {
	msg := "no answer from " + a.server + " within " + a.timeout.String()
	if problem := dialProblem(detail); strings.Contains(detail, "dial") && problem != detail {
		return msg + ": " + problem + "\n  choose another server with --server HOST:PORT or PROBEMESH_SERVER"
	}
	return msg + "; wait longer with --timeout, or ask another server with --server"
}

var dialing = regexp.MustCompile(`dial tcp(?: [^ ]*)?: (?:connect: |lookup [^ ]+(?: on [^ ]+)?: )?([^"]+)`)

// dialProblem takes what a person wants to know out of gRPC's description of a failed connection.
func dialProblem(detail string) string {
	if strings.Contains(detail, "looked like an HTTP/1.1 header") {
		return "an HTTP server answers there, not the gRPC API; the status page and /metrics have a port of their own"
	}
	if m := dialing.FindStringSubmatch(detail); m != nil {
		return m[1]
	}
	if i := strings.LastIndex(detail, "desc = "); i >= 0 {
		return strings.Trim(detail[i+len("desc = "):], `"`)
	}
	return detail
}
