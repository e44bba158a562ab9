package http

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// graphqlAnswer is what an answer to a query must look like (GraphQL, October 2021, section 7.1).
type graphqlAnswer struct {
	Data   json.RawMessage `json:"data"`
	Errors []struct {
		Message string `json:"message"`
	} `json:"errors"`
}

// judgeGraphQL is the judgement of an answer to a query.
func (g *answer) judgeGraphQL() *probe.Failure {
	fail := func(class meshv1.Result_ErrorClass, sentence string) *probe.Failure {
		return &probe.Failure{Class: class, Phase: meshv1.Result_EXPECT, Sentence: sentence}
	}
	var got graphqlAnswer
	if err := json.Unmarshal(g.body, &got); err != nil {
		if g.cut {
			return fail(meshv1.Result_PROTOCOL, "the answer to the GraphQL query is longer than http.body_limit; raise it")
		}
		return fail(meshv1.Result_PROTOCOL, "the answer to the GraphQL query is not a GraphQL response: "+short(err.Error()))
	}
	has := len(got.Data) > 0 && !bytes.Equal(got.Data, []byte("null"))
	switch {
	case len(got.Errors) > 0 && !(has && g.graphql.GetAllowErrors()):
		return fail(meshv1.Result_EXPECTATION, "the GraphQL query has "+count(len(got.Errors), "error")+", the first one: "+short(got.Errors[0].Message))
	case !has:
		return fail(meshv1.Result_PROTOCOL, "the answer to the GraphQL query has neither data nor errors")
	}
	return nil
}

// count is a number of things in words.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}
