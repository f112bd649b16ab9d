package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// keys are the files that prove who the server and its administrator are.
type keys struct {
	servingCertificate string // the server's certificate and the authority that signed it
	servingKey         string
	serviceAccountKey  string // signs the tokens of service accounts, and checks them
	tokens             string // static tokens: the administrator's, and the node's where there is one
}

// readOrMakeKeys finds the keys of an earlier start in `data`, or makes them: tokens stay valid over a restart. The certificate
// holds for loopback and for `addresses`. `node` is the name of a Node whose kubelet has a token, or empty.
func readOrMakeKeys(data string, addresses []net.IP, node string) (keys, error) {
	k := keys{
		servingCertificate: filepath.Join(data, "serving.crt"),
		servingKey:         filepath.Join(data, "serving.key"),
		serviceAccountKey:  filepath.Join(data, "service-accounts.key"),
		tokens:             filepath.Join(data, "tokens.csv"),
	}
	// The tokens are written last: where they are, everything is.
	if _, err := os.Stat(k.tokens); err == nil {
		return k, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return k, err
	}
	addresses = append([]net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, addresses...)
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", addresses, names)
	if err != nil {
		return k, err
	}
	signing, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return k, err
	}
	signingPEM, err := keyutil.MarshalPrivateKeyToPEM(signing)
	if err != nil {
		return k, err
	}
	tokens := newToken() + ",admin,admin,system:masters\n"
	if node != "" {
		tokens += fmt.Sprintf("%s,system:node:%s,node,system:nodes\n", newToken(), node)
	}
	for _, file := range []struct {
		path     string
		contents []byte
	}{
		{k.servingCertificate, certificate},
		{k.servingKey, key},
		{k.serviceAccountKey, signingPEM},
		{k.tokens, []byte(tokens)},
	} {
		if err := os.WriteFile(file.path, file.contents, 0o600); err != nil {
			return k, err
		}
	}
	return k, nil
}

func newToken() string {
	secret := make([]byte, 16)
	rand.Read(secret) // never fails
	return hex.EncodeToString(secret)
}

// writeKubeconfigs writes what clients need to reach `server`, for each user who has a token: DIR/admin.kubeconfig, and
// DIR/node.kubeconfig where there is a node.
func (k keys) writeKubeconfigs(directory, server string) error {
	authority, err := os.ReadFile(k.servingCertificate)
	if err != nil {
		return err
	}
	file, err := os.Open(k.tokens)
	if err != nil {
		return err
	}
	defer file.Close()
	tokens, err := csv.NewReader(file).ReadAll()
	if err != nil {
		return err
	}
	for _, row := range tokens {
		token, user := row[0], row[2]
		config := clientcmdapi.NewConfig()
		config.Clusters["test"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: authority}
		config.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: token}
		config.Contexts[user] = &clientcmdapi.Context{Cluster: "test", AuthInfo: user}
		config.CurrentContext = user
		if err := clientcmd.WriteToFile(*config, filepath.Join(directory, user+".kubeconfig")); err != nil {
			return err
		}
	}
	return nil
}
