"use strict";

// A response table with ten errors hides the one response that matters.
const foldErrors = (Responses, { React }) => (props) => {
  const failed = (_, status) => status >= "400";
  const errors = props.responses.filter(failed);
  return React.createElement(
    "div",
    null,
    React.createElement(Responses, { ...props, responses: props.responses.filterNot(failed) }),
    errors.size > 0 &&
      React.createElement(
        "details",
        { className: "folded" },
        React.createElement("summary", null, "Errors: " + errors.keySeq().join(", ")),
        React.createElement(Responses, { ...props, responses: errors, tryItOutResponse: undefined }),
      ),
  );
};

// Conditions and ranges are optional, and on a phone they fill a screen.
const foldHeaders = (Parameters, { React }) => (props) => {
  const inHeader = (parameter) => parameter.get("in") === "header";
  const headers = props.parameters.filter(inHeader);
  return React.createElement(
    React.Fragment,
    null,
    React.createElement(Parameters, { ...props, parameters: props.parameters.filterNot(inHeader) }),
    headers.size > 0 &&
      React.createElement(
        "details",
        { className: "folded" },
        React.createElement("summary", null, "Headers: " + headers.map((h) => h.get("name")).join(", ")),
        React.createElement(Parameters, {
          ...props,
          parameters: headers,
          operation: props.operation.delete("requestBody"),
        }),
      ),
  );
};

// An input that is left empty is not sent, unless its box is ticked.
const omitEmpty = (ParameterIncludeEmpty, { React }) => (props) =>
  React.createElement(ParameterIncludeEmpty, {
    ...props,
    isIncludedOptions: { ...props.isIncludedOptions, defaultValue: false },
  });

(async () => {
  const contract = new URL("../openapi.yaml", document.baseURI);
  // A service with tokens names their scheme; a request for users would be a 401 in the console. The cache
  // of Chromium drops the header.
  const request = { method: "HEAD", cache: "no-store" };
  const tokens = await fetch(contract, request).then((r) => r.headers.has("WWW-Authenticate"), () => true);
  // The contract of this installation: behind the prefix of a proxy, and with tokens or without.
  const adapt = (original) => ({ components: { securitySchemes, ...components }, ...spec }) =>
    original({
      ...spec,
      components: tokens ? { securitySchemes, ...components } : components,
      security: tokens ? [{ bearerAuth: [] }] : [],
      servers: [{ url: new URL(".", contract).href.replace(/\/$/, "") }],
    });
  window.ui = SwaggerUIBundle({
    url: contract.href,
    dom_id: "#swagger-ui",
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    persistAuthorization: tokens,
    plugins: [
      {
        wrapComponents: { parameters: foldHeaders, responses: foldErrors, ParameterIncludeEmpty: omitEmpty },
        statePlugins: { spec: { wrapActions: { updateJsonSpec: adapt } } },
      },
    ],
    // By default the document is sent to a public validator.
    validatorUrl: null,
  });
})();
