// coredns is CoreDNS with the plugins that forwarding takes, to be measured beside Namegate. Its
// other plugins would take minutes to compile and no part in a lookup.
package main

import (
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/forward"
)

func main() { coremain.Run() }
