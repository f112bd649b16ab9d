package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// serveAPI runs kube-apiserver over an etcd on loopback, with RBAC on, and writes DIR/admin.kubeconfig for its administrator.
//
// The flags after `--` are kube-apiserver's own and are added to those below.
func serveAPI(arguments []string) {
	flags := flag.NewFlagSet("serve-api", flag.ExitOnError)
	data := flags.String("data", "", "directory that keeps everything")
	port := flags.Int("port", 0, "port for clients, on loopback")
	etcdPort := flags.Int("etcd-port", 0, "port of etcd, on loopback")
	flags.Parse(arguments)

	keys, err := readOrMakeKeys(*data)
	if err != nil {
		fatal("making keys", err)
	}
	server := fmt.Sprintf("https://127.0.0.1:%d", *port)
	if err := keys.writeKubeconfig(filepath.Join(*data, "admin.kubeconfig"), server); err != nil {
		fatal("writing the administrator's kubeconfig", err)
	}

	command := app.NewAPIServerCommand()
	command.SetArgs(append([]string{
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", *port),
		fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", *etcdPort),
		"--tls-cert-file=" + keys.servingCertificate,
		"--tls-private-key-file=" + keys.servingKey,
		"--token-auth-file=" + keys.tokens,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + keys.serviceAccountKey,
		"--service-account-signing-key-file=" + keys.serviceAccountKey,
		"--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112",
		"--authorization-mode=RBAC",
		"--allow-privileged=true",
		// No controller manager runs, so nobody makes the service accounts that this plugin would look for in every namespace.
		"--disable-admission-plugins=ServiceAccount",
		// The `kubernetes` Service would get the endpoint 127.0.0.1, which the API refuses; tests that want it make it.
		"--endpoint-reconciler-type=none",
		"--v=0",
	}, flags.Args()...))
	os.Exit(cli.Run(command))
}
