//! The guide: short chapters, each on one subject, whose programs are tests.
//!
//! They can be read in any order; [`train`](mod@train) and [`predict`](mod@predict) are a good start. The same text is in `docs/guide/`.

/// The links of the chapters lead to modules here and to files in the repository; link definitions that come first win.
macro_rules! chapters {
    ($($name:ident: $about:literal, $file:literal;)*) => {$(
        #[doc = $about]
        ///
        /// [contributing]: https://github.com/tomograd/tomograd/blob/main/CONTRIBUTING.md
        /// [architecture]: https://github.com/tomograd/tomograd/blob/main/docs/ARCHITECTURE.md
        /// [winograd]: https://github.com/tomograd/tomograd/blob/main/docs/decisions/0004-winograd-by-default.md
        /// [downstream]: https://github.com/tomograd/tomograd/blob/main/tests/downstream/src/lib.rs
        /// [unet3d]: https://github.com/tomograd/tomograd/blob/main/examples/unet3d.rs
        /// [layer]: https://github.com/tomograd/tomograd/blob/main/examples/3_layer.rs
        /// [example]: https://github.com/tomograd/tomograd/blob/main/examples/5_weights.rs
        /// [sheet]: https://raw.githubusercontent.com/tomograd/tomograd/main/docs/grad_cam.svg
        /// [classify]: https://github.com/tomograd/tomograd/blob/main/examples/classify.rs
        /// [table]: https://github.com/tomograd/tomograd/blob/main/benches/results/published_weights.md
        /// [zoo]: https://github.com/tomograd/tomograd/blob/main/docs/zoo/README.md
        /// [train]: mod@crate::guide::train
        /// [predict]: mod@crate::guide::predict
        /// [extend]: mod@crate::guide::extend
        /// [files]: mod@crate::guide::files
        /// [data]: mod@crate::guide::data
        /// [weights]: mod@crate::guide::weights
        /// [determinism]: mod@crate::guide::determinism
        /// [precision]: mod@crate::guide::precision
        /// [networks]: mod@crate::guide::networks
        /// [memory]: mod@crate::guide::memory
        ///
        #[doc = include_str!(concat!("../docs/guide/", $file))]
        pub mod $name {}
    )*};
}

chapters! {
    train: "A training loop, and the trainer.", "train.md";
    predict: "Masks from a checkpoint, in a program and on the command line.", "predict.md";
    extend: "Layers and operations of your own, with checked gradients.", "extend.md";
    files: "Volumes in files of many formats, and the program's commands for them.", "files.md";
    data: "Datasets, samples, transforms, loaders, caches.", "data.md";
    weights: "Weights that other programs have published.", "weights.md";
    determinism: "Why two runs give the same bits, and what keeps it so.", "determinism.md";
    precision: "Element types, half precision as storage, Winograd convolutions.", "precision.md";
    networks: "The registry, named inputs and outputs, feature maps, folded norms.", "networks.md";
    memory: "What a network costs, activation checkpointing, traces.", "memory.md";
}

/// The programs of the zoo's pages, which are tests too.
#[cfg(doctest)]
mod zoo {
    macro_rules! pages {
        ($($name:ident)*) => {$(
            #[allow(non_snake_case)]
            #[doc = include_str!(concat!("../docs/zoo/", stringify!($name), ".md"))]
            pub mod $name {}
        )*};
    }

    pages! {
        README alexnet attention_gated_unet attention_unet autoencoder basic_unet basic_unet_plus_plus
        convnext densenet discriminator dynunet efficientnet fcn fully_connected generator googlenet
        half_unet inception_v3 meshnet monai_classifier monai_unet multi_scale_patch_discriminator
        nested_unet nnunet patch_discriminator regressor res_unet resnet segresnet slice_sequence u2net unet
        unet2d unet3d unet3plus var_autoencoder vgg vnet
    }
}
