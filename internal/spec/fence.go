package spec

// Forbidden is how the sentence begins by which a prober says that its own settings (--allow-networks, --deny-networks, --unix-sockets) forbid it to connect to a
// target. It stands somewhere in Result.error, beside outcome ERROR and class PROBER; servers tell by it what no prober may probe from what none can.
const Forbidden = "this prober may not connect to "
