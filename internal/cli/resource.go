package cli

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// pageSize is how many resources a List call is asked for: the API's maximum.
const pageSize = 1000

// resource is a kind of thing that `get` shows: how to ask for it and how to show it.
type resource struct {
	// plural is its name in commands and the field of its list response; singular and short are other names for it.
	plural, singular string
	short            []string
	// collection is what its names begin with.
	collection string
	// response is an empty list response.
	response func() proto.Message
	// page gets one page; the token of the next is in the response.
	page func(ctx context.Context, c *client, filter, token string) (proto.Message, error)
	// get gets one by name. nil: it is looked for in the list.
	get func(ctx context.Context, c *client, name string) (proto.Message, error)
	// watch sends what there is, then each change, until the stream breaks. nil: the list is asked for every two seconds.
	watch func(ctx context.Context, c *client, filter string, emit func(change) error) error
	// columns defines the table.
	columns func(t *table, wide bool)
	// row is one line of the table.
	row func(m proto.Message, wide bool, now time.Time) []cell
	// editable is what of it a configuration file may have, for -o yaml; nil: all of it.
	editable func(m proto.Message) proto.Message
	// whole: a list call gives all of it; there is no filter.
	whole bool
	// hint says what to do when there is none.
	hint string
}

// change is something that a watch tells.
type change struct {
	// name is the resource that it is about.
	name string
	// item is the resource as it is now; nil when it is gone.
	item proto.Message
	// synced ends the snapshot; nothing else is set.
	synced bool
}

// nameField gives the name of a resource; that of a status is its check.
func nameField(m proto.Message) string {
	switch m := m.(type) {
	case *meshv1.CheckStatus:
		return m.GetCheck()
	case interface{ GetName() string }:
		return m.GetName()
	}
	return ""
}

// items are the resources of a list response.
func (r *resource) items(response proto.Message) []proto.Message {
	m := response.ProtoReflect()
	list := m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(r.plural))).List()
	out := make([]proto.Message, list.Len())
	for i := range out {
		out[i] = list.Get(i).Message().Interface()
	}
	return out
}

// wrap puts resources into a list response.
func (r *resource) wrap(items []proto.Message) proto.Message {
	response := r.response()
	m := response.ProtoReflect()
	list := m.Mutable(m.Descriptor().Fields().ByName(protoreflect.Name(r.plural))).List()
	for _, item := range items {
		list.Append(protoreflect.ValueOfMessage(item.ProtoReflect()))
	}
	return response
}

// all follows the pages of a list.
func (r *resource) all(ctx context.Context, a *app, c *client, filter string) ([]proto.Message, error) {
	var out []proto.Message
	for token := ""; ; {
		response, err := func() (proto.Message, error) {
			ctx, cancel := context.WithTimeout(ctx, a.timeout)
			defer cancel()
			return r.page(ctx, c, filter, token)
		}()
		if err != nil {
			return nil, err
		}
		out = append(out, r.items(response)...)
		paged, ok := response.(interface{ GetNextPageToken() string })
		if !ok || paged.GetNextPageToken() == "" {
			return out, nil
		}
		token = paged.GetNextPageToken()
	}
}

// resources lists every kind that `get` shows.
func resources() []*resource {
	return []*resource{checkResource(), statusResource(), incidentResource(), proberResource(), buildResource(), serverResource(), receiverResource(), memberResource()}
}

func checkResource() *resource {
	return &resource{
		plural: "checks", singular: "check", short: []string{"c"}, collection: spec.Checks,
		response: func() proto.Message { return &meshv1.ListChecksResponse{} },
		page: func(ctx context.Context, c *client, filter, token string) (proto.Message, error) {
			return c.checks.ListChecks(ctx, &meshv1.ListChecksRequest{PageSize: pageSize, PageToken: token, Filter: filter})
		},
		get: func(ctx context.Context, c *client, name string) (proto.Message, error) {
			return c.checks.GetCheck(ctx, &meshv1.GetCheckRequest{Name: name})
		},
		watch:    watchChecks,
		columns:  checkColumns,
		row:      checkRow,
		editable: func(m proto.Message) proto.Message { return editableCheck(m.(*meshv1.Check)) },
		hint:     "There are no checks. Write some into a file and run: probemesh apply -f FILE",
	}
}

func statusResource() *resource {
	return &resource{
		plural: "statuses", singular: "status", short: []string{"st"}, collection: spec.Checks,
		response: func() proto.Message { return &meshv1.ListStatusesResponse{} },
		page: func(ctx context.Context, c *client, filter, token string) (proto.Message, error) {
			return c.statuses.ListStatuses(ctx, &meshv1.ListStatusesRequest{PageSize: pageSize, PageToken: token, Filter: filter})
		},
		get: func(ctx context.Context, c *client, name string) (proto.Message, error) {
			return c.statuses.GetStatus(ctx, &meshv1.GetStatusRequest{Check: name})
		},
		watch:   watchStatuses,
		columns: statusColumns,
		row:     statusRow,
		hint:    "There are no checks, so there is no status.",
	}
}

func incidentResource() *resource {
	return &resource{
		plural: "incidents", singular: "incident", short: []string{"inc", "i"}, collection: spec.Incidents,
		response: func() proto.Message { return &meshv1.ListIncidentsResponse{} },
		page: func(ctx context.Context, c *client, filter, token string) (proto.Message, error) {
			return c.incidents.ListIncidents(ctx, &meshv1.ListIncidentsRequest{PageSize: pageSize, PageToken: token, Filter: filter})
		},
		get: func(ctx context.Context, c *client, name string) (proto.Message, error) {
			return c.incidents.GetIncident(ctx, &meshv1.GetIncidentRequest{Name: name})
		},
		watch:   watchIncidents,
		columns: incidentColumns,
		row:     incidentRow,
		hint:    "There is no incident.",
	}
}

func proberResource() *resource {
	return &resource{
		plural: "probers", singular: "prober", short: []string{"p"}, collection: spec.Probers,
		response: func() proto.Message { return &meshv1.ListProbersResponse{} },
		page: func(ctx context.Context, c *client, filter, token string) (proto.Message, error) {
			return c.probers.ListProbers(ctx, &meshv1.ListProbersRequest{PageSize: pageSize, PageToken: token, Filter: filter})
		},
		get: func(ctx context.Context, c *client, name string) (proto.Message, error) {
			return c.probers.GetProber(ctx, &meshv1.GetProberRequest{Name: name})
		},
		columns: proberColumns,
		row:     proberRow,
		hint:    "No prober is enrolled. Start one with: probemesh prober",
	}
}

func serverResource() *resource {
	return &resource{
		plural: "servers", singular: "server", short: []string{"s"}, collection: spec.Servers,
		response: func() proto.Message { return &meshv1.ListServersResponse{} },
		page: func(ctx context.Context, c *client, _, _ string) (proto.Message, error) {
			return c.servers.ListServers(ctx, &meshv1.ListServersRequest{})
		},
		columns: serverColumns,
		row:     serverRow,
		whole:   true,
		hint:    "No server is alive.",
	}
}

func receiverResource() *resource {
	return &resource{
		plural: "receivers", singular: "receiver", short: []string{"r"}, collection: spec.Receivers,
		response: func() proto.Message { return &meshv1.ListReceiversResponse{} },
		page: func(ctx context.Context, c *client, filter, token string) (proto.Message, error) {
			return c.receivers.ListReceivers(ctx, &meshv1.ListReceiversRequest{PageSize: pageSize, PageToken: token, Filter: filter})
		},
		get: func(ctx context.Context, c *client, name string) (proto.Message, error) {
			return c.receivers.GetReceiver(ctx, &meshv1.GetReceiverRequest{Name: name})
		},
		columns:  receiverColumns,
		row:      receiverRow,
		editable: func(m proto.Message) proto.Message { return editableReceiver(m.(*meshv1.Receiver)) },
		hint:     "There are no receivers, so nobody is told of incidents. Add one to a file and run: probemesh apply -f FILE",
	}
}

// editableCheck is a check as a configuration file has it: without what the mesh fills in.
func editableCheck(c *meshv1.Check) *meshv1.Check {
	c = proto.CloneOf(c)
	c.CreateTime, c.UpdateTime, c.Etag, c.Revision, c.Status = nil, nil, "", 0, nil
	return c
}

// editableReceiver is a receiver as a configuration file has it.
func editableReceiver(r *meshv1.Receiver) *meshv1.Receiver {
	r = proto.CloneOf(r)
	r.CreateTime, r.UpdateTime, r.Etag, r.Owed, r.LastError, r.LastDeliveryTime, r.DeliveryUnknown = nil, nil, "", 0, "", nil, false
	return r
}
