package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// gateway is what pods send to: no address of anything, and a neighbour by the node's end of the
// link, as with Calico.
var gateway = net.IPv4(169, 254, 1, 1)

// node is the network namespace that this process is in: it routes between pods, and the agent
// governs it.
type node struct {
	pods int
}

func newNode() (*node, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return nil, err
	}
	for knob, value := range map[string]string{
		"ip_forward": "1",
		// One ICMP error a second and client is the default; every refused datagram gets one here,
		// so that no probe has to wait.
		"icmp_ratelimit": "0",
	} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+knob, []byte(value), 0o644); err != nil {
			return nil, err
		}
	}
	// Services as kube-proxy has them: translated before any policy looks.
	return &node{}, nft(`table ip services {
		map addresses { type ipv4_addr : ipv4_addr; }
		chain prerouting { type nat hook prerouting priority dstnat; dnat to ip daddr map @addresses; }
	}`)
}

func nft(script string) error {
	command := exec.Command("nft", "-f", "-")
	command.Stdin = strings.NewReader(script)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %v: %s", err, output)
	}
	return nil
}

// translate makes a service's address stand for a pod's.
func (n *node) translate(service, pod string) error {
	return nft(fmt.Sprintf("add element ip services addresses { %s : %s }", service, pod))
}

// forget is the reverse of translate.
func (n *node) forget(service, pod string) error {
	return nft(fmt.Sprintf("delete element ip services addresses { %s : %s }", service, pod))
}

// podNetwork is a pod's network namespace, with one link to the node.
type podNetwork struct {
	address   string
	namespace int
	link      netlink.Link
	servers   []interface{ Close() error }
}

// newPodNetwork makes a network namespace and connects it.
func (n *node) newPodNetwork() (*podNetwork, error) {
	n.pods++
	pod := &podNetwork{address: fmt.Sprintf("10.244.%d.%d", n.pods/250, 1+n.pods%250)}
	made := make(chan error)
	go func() {
		// The thread stays in the new namespace, and ends with this goroutine.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			pod.namespace, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		made <- err
	}()
	if err := <-made; err != nil {
		return nil, err
	}
	name := fmt.Sprintf("pod%d", n.pods)
	pod.link = &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: name},
		PeerName:      "eth0",
		PeerNamespace: netlink.NsFd(pod.namespace),
	}
	if err := netlink.LinkAdd(pod.link); err != nil {
		return nil, fmt.Errorf("veth %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(pod.link); err != nil {
		return nil, err
	}
	nodeEnd, err := netlink.LinkByName(name)
	if err != nil {
		return nil, err
	}
	host := &net.IPNet{IP: net.ParseIP(pod.address), Mask: net.CIDRMask(32, 32)}
	if err := pod.enter(func() error { return configure(host, nodeEnd.Attrs().HardwareAddr) }); err != nil {
		return nil, fmt.Errorf("pod %s: %w", pod.address, err)
	}
	route := &netlink.Route{LinkIndex: pod.link.Attrs().Index, Dst: host, Scope: netlink.SCOPE_LINK}
	return pod, netlink.RouteAdd(route)
}

// configure sets up the inside of a pod's network.
func configure(address *net.IPNet, nodeEnd net.HardwareAddr) error {
	for _, name := range []string{"lo", "eth0"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		if name == "lo" {
			continue
		}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: address}); err != nil {
			return err
		}
		index := link.Attrs().Index
		neighbour := &netlink.Neigh{LinkIndex: index, IP: gateway, HardwareAddr: nodeEnd, State: netlink.NUD_PERMANENT}
		if err := netlink.NeighAdd(neighbour); err != nil {
			return err
		}
		onLink := &netlink.Route{LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: gateway, Mask: net.CIDRMask(32, 32)}}
		if err := netlink.RouteAdd(onLink); err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gateway}); err != nil {
			return err
		}
	}
	return nil
}

// enter calls f in the pod's network namespace. Sockets that f makes stay in there.
func (p *podNetwork) enter(f func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: a thread in a pod's namespace must not run anything else.
		runtime.LockOSThread()
		if err := unix.Setns(p.namespace, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// close ends the pod's servers, its link and its namespace.
func (p *podNetwork) close() error {
	for _, server := range p.servers {
		server.Close()
	}
	unix.Close(p.namespace)
	return netlink.LinkDel(p.link)
}
