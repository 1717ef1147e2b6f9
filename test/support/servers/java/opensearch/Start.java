import org.codelibs.opensearch.runner.OpenSearchRunner;

/** One OpenSearch node in this process: java Start.java <folder> <port> <inner port> [<setting>=<value> …] */
class Start {
  public static void main(String[] args) throws InterruptedException {
    var runner = new OpenSearchRunner();
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      try {
        runner.close();
      } catch (java.io.IOException error) {
        error.printStackTrace();
      }
    }));
    runner.onBuild((node, settings) -> {
      settings.put("http.port", args[1]);
      settings.put("transport.port", args[2]);
      settings.put("discovery.type", "single-node");
      for (var at = 3; at < args.length; at++) {
        var parts = args[at].split("=", 2);
        settings.put(parts[0], parts[1]);
      }
    }).build(OpenSearchRunner.newConfigs().basePath(args[0]).numOfNode(1));
    Thread.currentThread().join();
  }
}
