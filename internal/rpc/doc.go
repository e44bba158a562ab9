// Package rpc is what every gRPC server and client of probemesh has in common, so that each behaves alike towards the people who call it.
//
// A server made by [NewServer] promises its callers:
//
//   - an error of a probemesh service is an error of package fault, or one of gRPC itself (CANCELLED, DEADLINE_EXCEEDED, UNIMPLEMENTED, a broken
//     transport); anything else becomes INTERNAL with reason INTERNAL_FAULT, and is logged once with its cause;
//   - a panic of a handler ends that call with INTERNAL_FAULT, logged with its stack, and no other call;
//   - a unary call without a deadline gets one of 30 s, so that no forgotten call stays for ever; streams live as long as their caller wants;
//   - reflection (v1 and v1alpha), the standard health service and channelz are there.
//
// A server is run by [Serve], which stops it gracefully when its context ends. A client comes from [Dial]. Neither starts anything in the
// background that outlives the server or the connection. Both work over a bufconn listener, inside a testing/synctest bubble too:
//
//	server, health := rpc.NewServer(rpc.Config{}, logger, meter)
//	meshv1.RegisterCheckServiceServer(server, checks)
//	err := rpc.Serve(ctx, server, health, listener, 5*time.Second)
package rpc
