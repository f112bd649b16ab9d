package main

import (
	"flag"
	"fmt"
	"net"
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// firstServiceAddress is that of the Service `kubernetes`.
var firstServiceAddress = net.IPv4(10, 96, 0, 1)

// serveAPI runs kube-apiserver over an etcd on loopback, with RBAC on, and writes DIR/admin.kubeconfig for its administrator.
//
// With --node a kubelet and the controllers are expected: DIR/node.kubeconfig is the kubelet's, which may do what a node may,
// and Pods get the tokens of their ServiceAccounts. With --address Pods reach the server by the Service `kubernetes`.
//
// The flags after `--` are kube-apiserver's own and are added to those below.
func serveAPI(arguments []string) {
	flags := flag.NewFlagSet("serve-api", flag.ExitOnError)
	data := flags.String("data", "", "directory that keeps everything")
	port := flags.Int("port", 0, "port for clients, on loopback")
	etcdPort := flags.Int("etcd-port", 0, "port of etcd, on loopback")
	address := flags.String("address", "", "address for clients on a node, besides loopback")
	node := flags.String("node", "", "name of the Node whose kubelet is a client")
	flags.Parse(arguments)

	var addresses []net.IP
	if *address != "" {
		addresses = []net.IP{net.ParseIP(*address), firstServiceAddress}
	}
	keys, err := readOrMakeKeys(*data, addresses, *node)
	if err != nil {
		fatal("making keys", err)
	}
	server := fmt.Sprintf("https://127.0.0.1:%d", *port)
	if err := keys.writeKubeconfigs(*data, server); err != nil {
		fatal("writing kubeconfigs", err)
	}

	own := []string{
		fmt.Sprintf("--secure-port=%d", *port),
		fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", *etcdPort),
		"--tls-cert-file=" + keys.servingCertificate,
		"--tls-private-key-file=" + keys.servingKey,
		"--token-auth-file=" + keys.tokens,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + keys.serviceAccountKey,
		"--service-account-signing-key-file=" + keys.serviceAccountKey,
		"--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112",
		"--allow-privileged=true",
		"--v=0",
	}
	if *address == "" {
		own = append(own,
			"--bind-address=127.0.0.1",
			"--advertise-address=127.0.0.1",
			// The `kubernetes` Service would get the endpoint 127.0.0.1, which the API refuses; tests that want it make it.
			"--endpoint-reconciler-type=none",
		)
	} else {
		own = append(own, "--bind-address=0.0.0.0", "--advertise-address="+*address)
	}
	if *node == "" {
		own = append(own,
			"--authorization-mode=RBAC",
			// No controller manager runs, so nobody makes the service accounts that this plugin would look for in every namespace.
			"--disable-admission-plugins=ServiceAccount",
		)
	} else {
		own = append(own,
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			// A node's name resolves nowhere here.
			"--kubelet-preferred-address-types=InternalIP",
		)
	}
	command := app.NewAPIServerCommand()
	command.SetArgs(append(own, flags.Args()...))
	os.Exit(cli.Run(command))
}
