// cilium-dns-proxy is the DNS proxy of Cilium as a server of its own, to be measured beside
// Namegate.
//
// Everything that a lookup meets in it is Cilium's: its server, its parser, its policy check by
// regular expressions, its client. What it asks of the rest of an agent is answered here with
// constants, so that it costs nothing: every client is one endpoint, the upstream has one identity,
// and what a lookup has taught is told to nobody. In an agent each answer is entered into caches,
// and waits for the datapath.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/dns"
	"golang.org/x/sys/unix"

	"github.com/cilium/cilium/pkg/endpoint"
	"github.com/cilium/cilium/pkg/fqdn/dnsproxy"
	"github.com/cilium/cilium/pkg/fqdn/proxy/ipfamily"
	"github.com/cilium/cilium/pkg/fqdn/restore"
	"github.com/cilium/cilium/pkg/identity"
	"github.com/cilium/cilium/pkg/ipcache"
	"github.com/cilium/cilium/pkg/labels"
	"github.com/cilium/cilium/pkg/logging"
	"github.com/cilium/cilium/pkg/policy"
	"github.com/cilium/cilium/pkg/policy/api"
	"github.com/cilium/cilium/pkg/u8proto"
)

// Any identities of a cluster.
const (
	endpointIdentity identity.NumericIdentity = 10_000
	upstreamIdentity identity.NumericIdentity = 10_001
)

func main() {
	listen := flag.String("listen", "", "`ADDRESS:PORT` to serve UDP on")
	upstream := flag.String("upstream", "", "`ADDRESS:PORT` of the resolver")
	allow := flag.String("allow", "", "`PATTERNS` of the names that may be asked for, separated by commas")
	flag.Parse()
	if err := serve(*listen, *upstream, strings.Split(*allow, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "cilium-dns-proxy:", err)
		os.Exit(1)
	}
}

func serve(listen, upstream string, allow []string) error {
	target, err := netip.ParseAddrPort(upstream)
	if err != nil {
		return err
	}
	logger := logging.DefaultSlogLogger
	config := dnsproxy.DNSProxyConfig{
		Logger:               logger,
		IPv4:                 true,
		EnableDNSCompression: true,
		RejectReply:          "nameError",
	}
	client := &endpoint.Endpoint{ID: 1, SecurityIdentity: &identity.Identity{ID: endpointIdentity}}
	proxy := dnsproxy.NewDNSProxy(config, oneEndpoint{client}, ignore)
	var rules api.L7Rules
	for _, pattern := range allow {
		rules.DNS = append(rules.DNS, api.PortRuleDNS{MatchPattern: pattern})
	}
	port := restore.MakeV2PortProto(target.Port(), u8proto.UDP)
	allowed := policy.L7DataMap{everything{}: &policy.PerSelectorPolicy{L7Rules: rules}}
	if _, err := proxy.UpdateAllowed(uint64(client.ID), port, allowed); err != nil {
		return err
	}

	// As Cilium's own listener (`bindToAddr`), on UDP alone.
	socket, err := transparent.ListenPacket(context.Background(), "udp4", listen)
	if err != nil {
		return err
	}
	sessions, err := dnsproxy.NewSessionUDPFactory(logger, ipfamily.IPv4())
	if err != nil {
		return err
	}
	handler := redirected{proxy, net.UDPAddrFromAddrPort(target)}
	server := dns.Server{PacketConn: socket, Handler: handler, SessionUDPFactory: sessions}
	return server.ActivateAndServe()
}

// transparent makes sockets that are told where a datagram was sent to.
var transparent = net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
	failed := raw.Control(func(fd uintptr) {
		for _, option := range []int{unix.IP_TRANSPARENT, unix.IP_RECVORIGDSTADDR} {
			if err == nil {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IP, option, 1)
			}
		}
	})
	if failed != nil {
		return failed
	}
	return err
}}

// redirected gives the proxy every query as if its client had asked the upstream, and the datapath
// had redirected it: where a query was sent to is where the proxy forwards it to.
type redirected struct {
	proxy    *dnsproxy.DNSProxy
	upstream net.Addr
}

func (r redirected) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	r.proxy.ServeDNS(toUpstream{w, r.upstream}, query)
}

type toUpstream struct {
	dns.ResponseWriter
	upstream net.Addr
}

func (w toUpstream) LocalAddr() net.Addr { return w.upstream }

// oneEndpoint knows one endpoint, with every address, and the identity of the upstream.
type oneEndpoint struct{ endpoint *endpoint.Endpoint }

func (one oneEndpoint) LookupSecIDByIP(netip.Addr) (ipcache.Identity, bool) {
	return ipcache.Identity{ID: upstreamIdentity}, true
}

func (one oneEndpoint) LookupByIdentity(identity.NumericIdentity) []string { return nil }

func (one oneEndpoint) LookupRegisteredEndpoint(netip.Addr) (*endpoint.Endpoint, bool, error) {
	return one.endpoint, false, nil
}

// ignore takes what a lookup has taught.
func ignore(time.Time, *endpoint.Endpoint, string, identity.NumericIdentity, netip.AddrPort, *dnsproxy.MsgDetails, string, bool, *dnsproxy.ProxyRequestContext) error {
	return nil
}

// everything is the selector `toEndpoints: [{}]`.
type everything struct{}

func (everything) GetSelections() identity.NumericIdentitySlice { return nil }
func (everything) GetSelectionsAt(policy.SelectorSnapshot) identity.NumericIdentitySlice {
	return nil
}
func (everything) GetMetadataLabels() labels.LabelArrayList { return nil }
func (everything) Selects(identity.NumericIdentity) bool    { return true }
func (everything) IsWildcard() bool                         { return true }
func (everything) IsNone() bool                             { return false }
func (everything) String() string                           { return "everything" }
