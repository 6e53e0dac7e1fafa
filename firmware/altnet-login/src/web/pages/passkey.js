(() => {
  "use strict";
  const box = document.getElementById("passkey");
  if (!box || !window.PublicKeyCredential || !window.isSecureContext) return;
  const button = box.querySelector("button");
  const notice = box.querySelector("p");
  const bytes = (text) =>
    Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer)))
      .replace(/\+/g, "-").replace(/\x2f/g, "_").replace(/=+$/, "");
  const ask = async (path, more) => {
    const reply = await fetch("/passkey/" + path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ token: box.dataset.token, ...more }),
    });
    const answer = await reply.json();
    if (!reply.ok) throw new Error(answer.error);
    return answer;
  };
  const id = (known) => ({ ...known, id: bytes(known.id) });
  const add = async () => {
    const options = await ask("add/begin");
    const made = await navigator.credentials.create({
      publicKey: {
        ...options,
        challenge: bytes(options.challenge),
        user: id(options.user),
        excludeCredentials: options.excludeCredentials.map(id),
      },
    });
    await ask("add", {
      client_data: text(made.response.clientDataJSON),
      attestation: text(made.response.attestationObject),
    });
  };
  const use = async () => {
    const options = await ask("use/begin");
    const used = await navigator.credentials.get({
      publicKey: { ...options, challenge: bytes(options.challenge) },
    });
    await ask("use", {
      id: text(used.rawId),
      client_data: text(used.response.clientDataJSON),
      authenticator_data: text(used.response.authenticatorData),
      signature: text(used.response.signature),
      user: text(used.response.userHandle || new ArrayBuffer(0)),
    });
  };
  const say = (error) =>
    ({
      NotAllowedError: "Nothing was chosen, or it took too long. Try again.",
      InvalidStateError: "This passkey is there already.",
      NotSupportedError: "No authenticator here can do this. Use another browser or device.",
      ConstraintError: "This authenticator can't check that it is you. Set a PIN on it first.",
    })[error.name] || error.message;
  button.addEventListener("click", async () => {
    button.disabled = true;
    notice.hidden = true;
    try {
      await (box.dataset.what === "add" ? add() : use());
      location.replace("/");
    } catch (error) {
      notice.textContent = say(error);
      notice.hidden = false;
      button.disabled = false;
    }
  });
  box.hidden = false;
})();
