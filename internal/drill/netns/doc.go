// Package netns owns the networks of a drill: each site (a datacenter) has a network of its own, and a wire joins them that can be cut, in both
// directions or in one, or made slow and lossy.
//
// A site is a Linux network namespace, so its processes share nothing with the others but the wire: their connections break as those of a real datacenter
// do, by silence. Each namespace has one interface, a TUN device, whose other end is this process: it takes every packet that leaves a site
// and hands it to the site that it is for, or does not, as the site's [Fault] says. So a cut is exact, counted and works in one direction, and a delay needs
// no kernel module (many kernels have no netem). A round trip takes about 70 microseconds (BenchmarkWire). Rules of a firewall, bridges and the commands ip, tc and iptables are not needed.
//
//	done, code, err := netns.Isolate(ctx)              // first: this program again, in a network of its own, or its result
//	n, err := netns.New(logger, "a", "b", "c")
//	defer n.Close()
//	n.Wrap("a", cmd, []string{probemesh, netns.Command})   // run a command inside
//	l, err := n.Listen("b", "tcp", n.Host("b")+":80")      // or listen and dial there from this process
//	n.Set("a", netns.Cut())                                // nothing gets in or out
//	n.Set("a", netns.Fault{In: netns.Path{Drop: true}})    // a hears nobody, and is heard
//	n.Set("a", netns.Fault{})                              // as before
//
// This process itself is on the wire too, outside of every site, at [Network.Outside]; it can never be cut off.
// A cut of a site holds towards it as towards every other site; to look into a site all the same, dial from inside ([Network.Dial]).
//
// # Privileges
//
// None, where users may make user namespaces: [Isolate] runs this program again as root of a user namespace of its own. Where they may not, it needs root.
// Either way it needs /dev/net/tun. [Supported] says what is missing.
//
// # What it leaves behind
//
// Nothing. Namespaces have no names and devices are not persistent: both go with the last process and file that use them, also after SIGKILL.
package netns
