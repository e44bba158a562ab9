// Package server is the datacenter process: everything that a probemesh server does, as a library.
//
//	s, err := server.New(server.Config{Data: "./data"}, server.Deps{Log: logger})
//	...
//	err = s.Run(ctx) // until ctx ends; then it stops cleanly
//
// Its parts, and which way data flows between them:
//
//	probers --> gateway --> controller --> store (etcd) --> notify --> receivers
//	                |         ^  |  ^         |
//	                v         |  |  +--watch--+
//	              peer <------+  +--> api, statuses
//	               |  ^
//	               v  +--> other servers
//	             history
//
// store is the only one that knows etcd's keys; election says who leads; controller feeds the mind (package scheduler) and carries out its actions; gateway
// serves the probers' sessions, peer tells the other servers what those bring and hears theirs, api answers the users' calls, history keeps results, notify delivers what the outbox owes. [Server.Run] starts them, from the
// ground up, in one list, and stops them in the opposite order.
package server
