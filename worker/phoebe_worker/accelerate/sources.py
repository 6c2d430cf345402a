"""SHA-256 of the functions of PHOEBE that the patches were written for.

`python -m phoebe_worker.accelerate` prints the table for the PHOEBE that is installed.
"""

from __future__ import annotations


def sources(*names: str) -> dict[str, str]:
    """The guards for these functions."""
    return {name: DIGESTS.get(name, "") for name in names}


DIGESTS = {
    "phoebe.constraints.builtin:requiv_L1": (
        "5803a09d19fba0dad8d976580400465896a1bb34d52a48438a9f18ed0d3f0fed"
    ),
    "phoebe.constraints.expression:ConstraintVar.get_parameter": (
        "055f00159796bda6036cb9ccd864d65bd79ea07d0e7ad9a13f672aca6bfd3210"
    ),
    "phoebe.constraints.expression:ConstraintVar.get_quantity": (
        "277401e2aba3512216c513a2a3f3738977d5d9976fff8ff6ecec7a054213b5e2"
    ),
    "phoebe.constraints.expression:ConstraintVar.get_value": (
        "361d3462781fcfd21d944c470d3f0822429d4267076f409a79206547de57f489"
    ),
    "phoebe.constraints.expression:ConstraintVar.update_user_label": (
        "1f7ea786e5ef089c6683c1ecaeab8eab10f13e7760f30b3198fb5b3c28a89804"
    ),
    "phoebe.distortions.roche:roche_misaligned_critical_requiv": (
        "42bb1be24b9253e82b6b0568a58145b06a29e40d6e701bc6825d4e9540ae6be5"
    ),
    "phoebe.frontend.bundle:Bundle.run_constraint": (
        "f7e8c726c30876b3998e8542ad3e1ce22c0292a67dc132f15ff48fbb599d551b"
    ),
    "phoebe.parameters.parameters:ConstraintParameter.addl_vars": (
        "534ae2e189e25f5f28f4e4cdb16b12009894a6c49204c544aef0a924ddc433d0"
    ),
    "phoebe.parameters.parameters:ConstraintParameter.get_constrained_parameter": (
        "e300c8c809429b1aae68056f6edce0d535bc9aef2ea82d2acb98e2d4f649da26"
    ),
    "phoebe.parameters.parameters:ConstraintParameter.get_parameter": (
        "da250df45f447550dddda13bf97962748c6efb3329d53e0c966dce2855b7064b"
    ),
    "phoebe.parameters.parameters:ConstraintParameter.get_result": (
        "ece27e446a4ee0065e4ef3ed32f55422bd89d063617d395f1c7ff6e88d27871f"
    ),
    "phoebe.parameters.parameters:ConstraintParameter.get_value": (
        "5a0a5e96c53a7ffdb8c5069fdca939757c151c50a690607e1d07c2665d7ba2a1"
    ),
    "phoebe.parameters.parameters:ConstraintParameter.is_visible": (
        "39fab1dad3db1d65b9f006d5b7ceda53eac0faeda6d822a09f7d33333ed8ef3c"
    ),
    "phoebe.parameters.parameters:ConstraintParameter.vars": (
        "19518e60d6381ad8da0652eb5e2dbbd9bca2576b2cc7df8896c7e4b786b0341d"
    ),
    "phoebe.parameters.parameters:FloatParameter.default_unit": (
        "070ecd58f897a04285dbcd6060ed8f60f55e748f830c837a8c3aa386219f030a"
    ),
    "phoebe.parameters.parameters:FloatParameter.get_quantity": (
        "ec9f9619baae03f9e9641aa4672dfd202d91b400ab8ee706dab3ae23e89eed23"
    ),
    "phoebe.parameters.parameters:Parameter._is_visible": (
        "fed9f400688f0e869ce2ece83eb8ea3766177d0415decad3fd0e66a85b2bb59d"
    ),
    "phoebe.parameters.parameters:Parameter.component": (
        "7e1f033f0145237b8ea1744985f4be1b186a6ced742c9f50d8da86520509268c"
    ),
    "phoebe.parameters.parameters:Parameter.dataset": (
        "ceabe0aa17ff21df74fb2620afe5023a0644ee3266805323b8a1684fcb28a6a1"
    ),
    "phoebe.parameters.parameters:Parameter.is_visible": (
        "a433d1e9cd8ecd58afd83c080fb69a3935aece643ac83b97610dbe57ce97f5e2"
    ),
    "phoebe.parameters.parameters:Parameter.kind": (
        "d53ff0c708514595ca199101c9606155fc7c8922b4618c75ba38a8bba268e932"
    ),
    "phoebe.parameters.parameters:Parameter.qualifier": (
        "fc0df8a2cd4a3307e0a8b2af786c16178ce4699605d1f264744b2fa6eb443485"
    ),
    "phoebe.parameters.parameters:Parameter.tags": (
        "7791f4bd51ba401739fa90cc454953267b3f75c7e455453b1e2f86e4520831b5"
    ),
    "phoebe.parameters.parameters:Parameter.time": (
        "3fa80d15261899f12a1fe4bf7aaf1a9b2ce927ac1bd3a5873bb8b5d66a6d2d3f"
    ),
    "phoebe.parameters.parameters:Parameter.to_json": (
        "c39c50b08f0c7f1c280569ad506cebc5a81dc3f544a19c872417a095490c4663"
    ),
    "phoebe.parameters.parameters:Parameter.twig": (
        "d6fc47b86dd63ce358f00c45164ed26729d5465a8fb940f9f4b647a68102d080"
    ),
    "phoebe.parameters.parameters:Parameter.uniqueid": (
        "33286ad5dceda1454e9167b6872487b0a8e294ee85dd1ad7f0b261d019b50a66"
    ),
    "phoebe.parameters.parameters:ParameterSet.__init__": (
        "b6579e7b2e0688be3260f5ea41fb1ac7e151c5ae080abbe15312d93edd4e924e"
    ),
    "phoebe.parameters.parameters:ParameterSet.__repr__": (
        "8eb0635a9454c752e64a84dfae148ea6ce4b0362b4bd605b8905b95d1559bef8"
    ),
    "phoebe.parameters.parameters:ParameterSet._options_for_tag": (
        "849a5fd0bc75b3de7075fe9fa8b9c77bc8eba5a7f1f947a0db03b6b13544c45a"
    ),
    "phoebe.parameters.parameters:ParameterSet._remove_parameter": (
        "dd565290510cdef1d55f21e5b80412f8fc1da4545da7ec28d3fd127efd9dac10"
    ),
    "phoebe.parameters.parameters:ParameterSet._set_meta": (
        "dc6281455f10c6643340ed063530c2663ecc7c095f289d6c2c19db73b0f9321d"
    ),
    "phoebe.parameters.parameters:ParameterSet._uniquetags": (
        "e70576477db5c02f15cd5511a34ddd4f4002d7f6443c9af2402f926394918da3"
    ),
    "phoebe.parameters.parameters:ParameterSet.filter": (
        "59f818060198997dbae11923eb9b7873c8938234c2e3f5d5fc99e9293bd2ae4f"
    ),
    "phoebe.parameters.parameters:ParameterSet.filter_or_get": (
        "aee068d5c57d95319121d67e6a0852f0b8b0543a5b1630c4cebd0c1266e7aa34"
    ),
    "phoebe.parameters.parameters:ParameterSet.get_quantity": (
        "d699284f13ac06560f3fbf44717dfe4df8d86870dc04a69c035247511b8e19d6"
    ),
    "phoebe.parameters.parameters:ParameterSet.get_value": (
        "31231467508b8633604863c88c53f52c9190700748b4e060b99bdb671831b439"
    ),
    "phoebe.parameters.parameters:ParameterSet.remove_parameters_all": (
        "c7c6f77a0296300c7727a90afe6a8622f5bc6d88325de063676f0368230c4208"
    ),
    "phoebe.parameters.parameters:ParameterSet.to_dict": (
        "270fa93174436adee15d636807db57bdfac69be7c32c94b1146fd4cce841868b"
    ),
    "phoebe.parameters.parameters:ParameterSet.to_json": (
        "d7da4dad5ab686e8533e6f2188b424770b4dabd3526b083942cc329db7c3811a"
    ),
    "phoebe.parameters.parameters:_extract_index_from_string": (
        "b6f261bb5cc4e43477d755b59c2cd7d20b5b5e4235774c12bc4b221d27ec98c7"
    ),
    "phoebe.parameters.parameters:_fnmatch": (
        "c469ad62a76af525d37bea7a4f915c1db108f4113bb9022e311a88214a23983a"
    ),
    "phoebe.parameters.parameters:_uniqueid": (
        "a8397cb5706111007bf3fbebbdc181bd007686aa90969f630064895794ac44b9"
    ),
    "phoebe.parameters.twighelpers:_uniqueid_to_uniquetwig": (
        "d7fd07677427e65d4182c161830208a9dee2fb0b790168fa117bc6c7822ff243"
    ),
}
