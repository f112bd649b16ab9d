// Kubernetes for the tests, in one binary: etcd, the API server, its controllers, the scheduler, kubelet, kube-proxy and kubectl,
// each as its project ships it; what renders Helm charts; and what reads the objects of the Prometheus operator.
//
//	control-plane serve-etcd --data DIR --port N --peer-port N [--forget]
//	control-plane serve-api --data DIR --port N --etcd-port N [--address IP --node NAME] [-- FLAGS OF KUBE-APISERVER]
//	control-plane serve-controllers FLAGS OF KUBE-CONTROLLER-MANAGER
//	control-plane serve-scheduler FLAGS OF KUBE-SCHEDULER
//	control-plane serve-kubelet FLAGS OF KUBELET
//	control-plane serve-proxy FLAGS OF KUBE-PROXY
//	control-plane kubectl ARGUMENTS OF KUBECTL
//	control-plane helm-template NAMESPACE CHART VALUE=…
//	control-plane check-monitoring < OBJECTS
//
// The servers listen on loopback, unless an address is given, and stop on SIGTERM, or when their standard input ends, so that none outlives a test
// that was killed. Everything that they keep is below --data: a server which is started again finds its objects, its keys
// and the tokens that it issued. With --forget the store removes all that when its input ends, since a test that was killed cannot.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	mode := os.Args[1]
	os.Args = append(os.Args[:1], os.Args[2:]...)
	switch mode {
	case "serve-etcd":
		serveEtcd(os.Args[1:])
	case "serve-api":
		go endWithInput(func() {})
		serveAPI(os.Args[1:])
	case "serve-controllers", "serve-scheduler", "serve-kubelet", "serve-proxy":
		go endWithInput(func() {})
		serveNode(mode)
	case "kubectl":
		kubectl()
	case "check-monitoring":
		checkMonitoring()
	case "helm-template":
		helmTemplate(os.Args[1:])
	default:
		usage()
	}
}

func endWithInput(last func()) {
	io.Copy(io.Discard, os.Stdin)
	last()
	os.Exit(0)
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: control-plane serve-etcd|serve-api|serve-controllers|serve-scheduler|serve-kubelet|serve-proxy|kubectl|helm-template|check-monitoring ARGUMENTS")
	os.Exit(2)
}

func fatal(doing string, err error) {
	fmt.Fprintf(os.Stderr, "control-plane: %s: %v\n", doing, err)
	os.Exit(1)
}
