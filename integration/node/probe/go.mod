module namegate/integration/node/probe

go 1.26.0
