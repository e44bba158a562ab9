// Package cli is the command line of probemesh: its commands, their flags, and what they print. It talks to servers by gRPC only and decides nothing
// itself.
//
// [Run] is the whole of it: arguments, streams and environment in, an exit code out. It starts nothing that outlives it, and may be called
// concurrently.
//
// A flag's value comes from the first of these that has it: the command line, the environment (`PROBEMESH_` and the flag's name in capitals,
// `-` as `_`), the file given by `--config`, the default.
//
// What is printed for people goes through [table] and [style]: tables fit the terminal, and nothing that came over the network reaches the
// terminal with control characters in it. Results go to standard output, everything else (progress, hints, errors) to standard error.
package cli
