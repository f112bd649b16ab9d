package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

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
	tokens             string // static tokens: the administrator's alone
}

// readOrMakeKeys finds the keys of an earlier start in `data`, or makes them: tokens stay valid over a restart.
func readOrMakeKeys(data string) (keys, error) {
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
	loopback := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", loopback, names)
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
	secret := make([]byte, 16)
	if _, err := rand.Read(secret); err != nil {
		return k, err
	}
	tokens := fmt.Sprintf("%s,admin,admin,system:masters\n", hex.EncodeToString(secret))
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

// writeKubeconfig writes what the administrator's clients need to reach `server`.
func (k keys) writeKubeconfig(path, server string) error {
	authority, err := os.ReadFile(k.servingCertificate)
	if err != nil {
		return err
	}
	tokens, err := os.ReadFile(k.tokens)
	if err != nil {
		return err
	}
	token, _, _ := strings.Cut(string(tokens), ",")
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: authority}
	config.AuthInfos["admin"] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts["admin"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "admin"}
	config.CurrentContext = "admin"
	return clientcmd.WriteToFile(*config, path)
}
