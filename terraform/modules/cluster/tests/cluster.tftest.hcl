mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }

  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }

  mock_data "aws_default_tags" {
    defaults = { tags = { ManagedBy = "terraform" } }
  }

  mock_data "aws_eks_addon_version" {
    defaults = { version = "v1.2.3-eksbuild.1" }
  }

  mock_resource "aws_eks_cluster" {
    defaults = {
      arn                   = "arn:aws:eks:eu-west-1:123456789012:cluster/roster"
      certificate_authority = [{ data = "Y2VydGlmaWNhdGU=" }]
    }
  }

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-west-1:123456789012:key/0123" }
  }

  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/role" }
  }
}

variables {
  name       = "roster"
  subnet_ids = ["subnet-a", "subnet-b", "subnet-c"]
  admin_arns = ["arn:aws:iam::123456789012:role/admin", "arn:aws:iam::123456789012:user/ops/anna"]
}

run "control_plane" {
  assert {
    condition     = aws_eks_cluster.this.name == "roster" && aws_eks_cluster.this.version == "1.35" && one(aws_eks_cluster.this.vpc_config).subnet_ids == toset(["subnet-a", "subnet-b", "subnet-c"])
    error_message = "The control plane is where and what it was asked to be."
  }

  assert {
    condition     = one(aws_eks_cluster.this.vpc_config).endpoint_private_access && one(aws_eks_cluster.this.vpc_config).endpoint_public_access == false
    error_message = "Unless asked otherwise the Kubernetes API is reachable from the VPC alone."
  }

  assert {
    condition     = aws_eks_cluster.this.enabled_cluster_log_types == toset(["api", "audit", "authenticator", "controllerManager", "scheduler"])
    error_message = "Everything that the control plane logs is kept."
  }

  assert {
    condition     = aws_cloudwatch_log_group.cluster.name == "/aws/eks/roster/cluster" && aws_cloudwatch_log_group.cluster.retention_in_days == 365
    error_message = "The log group is the one that EKS writes to, and keeps a year."
  }

  assert {
    condition     = one(aws_eks_cluster.this.encryption_config).resources == toset(["secrets"]) && one(one(aws_eks_cluster.this.encryption_config).provider).key_arn == aws_kms_key.secrets.arn
    error_message = "Secrets are encrypted with the cluster's key."
  }

  assert {
    condition     = aws_kms_key.secrets.enable_key_rotation && aws_kms_key.secrets.deletion_window_in_days == 30 && jsondecode(aws_kms_key.secrets.policy).Statement[*].Principal == [{ AWS = "arn:aws:iam::123456789012:root" }]
    error_message = "The key is rotated, can be brought back, and belongs to the account alone."
  }

  assert {
    condition     = one(aws_eks_cluster.this.access_config).authentication_mode == "API" && one(aws_eks_cluster.this.access_config).bootstrap_cluster_creator_admin_permissions == false
    error_message = "Only access entries let anyone in."
  }

  assert {
    condition     = keys(aws_eks_access_entry.admin) == ["arn:aws:iam::123456789012:role/admin", "arn:aws:iam::123456789012:user/ops/anna"] && alltrue([for arn, entry in aws_eks_access_entry.admin : entry.principal_arn == arn])
    error_message = "The administrators have access entries."
  }

  assert {
    condition     = keys(aws_eks_access_policy_association.admin) == keys(aws_eks_access_entry.admin) && alltrue([for association in aws_eks_access_policy_association.admin : association.policy_arn == "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy" && one(association.access_scope).type == "cluster"])
    error_message = "The administrators administer the whole cluster."
  }

  assert {
    condition     = jsondecode(aws_iam_role.cluster.assume_role_policy).Statement[*].Principal == [{ Service = "eks.amazonaws.com" }] && aws_iam_role_policy_attachment.cluster.policy_arn == "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy" && aws_eks_cluster.this.role_arn == aws_iam_role.cluster.arn
    error_message = "The control plane has its role."
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.cluster_secrets.policy).Statement[*].Resource == [aws_kms_key.secrets.arn]
    error_message = "The control plane may use its key and no other."
  }

  assert {
    condition     = output.name == "roster" && output.arn == "arn:aws:eks:eu-west-1:123456789012:cluster/roster" && output.certificate_authority == "Y2VydGlmaWNhdGU="
    error_message = "The outputs name what was made."
  }
}

run "public_endpoint" {
  variables {
    api_cidrs = ["203.0.113.7/32", "198.51.100.0/24"]
  }

  assert {
    condition     = one(aws_eks_cluster.this.vpc_config).endpoint_private_access && one(aws_eks_cluster.this.vpc_config).endpoint_public_access && one(aws_eks_cluster.this.vpc_config).public_access_cidrs == toset(["198.51.100.0/24", "203.0.113.7/32"])
    error_message = "The Kubernetes API is reachable from the given ranges, and from the VPC as before."
  }
}

run "nodes" {
  variables {
    node_disk_gib = 50
  }

  assert {
    condition     = one(aws_eks_node_group.this.scaling_config).min_size == 2 && one(aws_eks_node_group.this.scaling_config).max_size == 6 && one(aws_eks_node_group.this.scaling_config).desired_size == 2
    error_message = "The nodes start with the fewest and can scale."
  }

  assert {
    condition     = aws_eks_node_group.this.ami_type == "AL2023_x86_64_STANDARD" && aws_eks_node_group.this.version == "1.35" && aws_eks_node_group.this.instance_types == tolist(["t3.medium"]) && aws_eks_node_group.this.subnet_ids == toset(["subnet-a", "subnet-b", "subnet-c"])
    error_message = "The nodes are of the cluster's version, in its subnets."
  }

  assert {
    condition     = one(aws_eks_node_group.this.launch_template).id == aws_launch_template.nodes.id
    error_message = "The nodes start from the launch template."
  }

  assert {
    condition     = one(aws_launch_template.nodes.metadata_options).http_tokens == "required" && one(aws_launch_template.nodes.metadata_options).http_put_response_hop_limit == 1
    error_message = "IMDSv2 only, and not for pods."
  }

  assert {
    condition     = one(one(aws_launch_template.nodes.block_device_mappings).ebs).encrypted == "true" && one(one(aws_launch_template.nodes.block_device_mappings).ebs).volume_size == 50 && one(one(aws_launch_template.nodes.block_device_mappings).ebs).volume_type == "gp3"
    error_message = "The disks are encrypted."
  }

  assert {
    condition     = { for specification in aws_launch_template.nodes.tag_specifications : specification.resource_type => specification.tags } == { instance = tomap({ ManagedBy = "terraform", Name = "roster-node" }), volume = tomap({ ManagedBy = "terraform", Name = "roster-node" }) }
    error_message = "Instances and disks have the tags of everything else."
  }

  assert {
    condition     = sort([for attachment in aws_iam_role_policy_attachment.nodes : attachment.policy_arn]) == tolist(["arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryPullOnly", "arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy"]) && jsondecode(aws_iam_role.nodes.assume_role_policy).Statement[*].Principal == [{ Service = "ec2.amazonaws.com" }]
    error_message = "The nodes join and pull images, and may do nothing else."
  }
}

# On top of the nodes that the runs above have made.
run "other_number_of_nodes" {
  variables {
    node_count = { min = 1, max = 9 }
  }

  assert {
    condition     = one(aws_eks_node_group.this.scaling_config).min_size == 1 && one(aws_eks_node_group.this.scaling_config).max_size == 9
    error_message = "The limits follow the configuration."
  }

  assert {
    condition     = one(aws_eks_node_group.this.scaling_config).desired_size == 2
    error_message = "How many there are in between is left to the autoscaler."
  }
}

run "arm_nodes" {
  variables {
    node_architecture   = "arm64"
    node_instance_types = ["t4g.medium", "c6gn.large"]
  }

  assert {
    condition     = aws_eks_node_group.this.ami_type == "AL2023_ARM_64_STANDARD" && aws_eks_node_group.this.instance_types == tolist(["t4g.medium", "c6gn.large"])
    error_message = "The image of the nodes is of their architecture."
  }
}

run "add_ons" {
  variables {
    kubernetes_version = "1.34"
  }

  assert {
    condition     = keys(aws_eks_addon.before_nodes) == ["eks-pod-identity-agent", "kube-proxy", "vpc-cni"] && keys(aws_eks_addon.after_nodes) == ["coredns", "metrics-server"]
    error_message = "What nodes need is there before them, what needs nodes comes after them."
  }

  assert {
    condition     = alltrue([for addon in concat(values(aws_eks_addon.before_nodes), values(aws_eks_addon.after_nodes)) : addon.addon_version == "v1.2.3-eksbuild.1" && addon.cluster_name == "roster" && addon.resolve_conflicts_on_create == "OVERWRITE"])
    error_message = "Add-ons are of the recommended version and take over what EKS installed."
  }

  assert {
    condition     = alltrue([for name, version in data.aws_eks_addon_version.this : version.kubernetes_version == "1.34" && version.addon_name == name]) && aws_eks_cluster.this.version == "1.34"
    error_message = "The recommended version is the one for the cluster's version."
  }

  assert {
    condition     = jsondecode(aws_eks_addon.before_nodes["vpc-cni"].configuration_values).enableNetworkPolicy == "true"
    error_message = "Network policies apply."
  }

  assert {
    condition     = aws_eks_pod_identity_association.vpc_cni.namespace == "kube-system" && aws_eks_pod_identity_association.vpc_cni.service_account == "aws-node" && aws_iam_role_policy_attachment.vpc_cni.policy_arn == "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy"
    error_message = "The pod network has a role of its own."
  }

  assert {
    condition = jsondecode(aws_iam_role.vpc_cni.assume_role_policy).Statement[*].Condition == [{
      StringEquals = {
        "aws:RequestTag/eks-cluster-arn"            = "arn:aws:eks:eu-west-1:123456789012:cluster/roster"
        "aws:RequestTag/kubernetes-namespace"       = "kube-system"
        "aws:RequestTag/kubernetes-service-account" = "aws-node"
      }
    }]
    error_message = "The role of the pod network is for this cluster's pod network alone."
  }
}

run "refuses_bad_name" {
  command = plan
  variables { name = "roster_1" }
  expect_failures = [var.name]
}

run "refuses_patch_version" {
  command = plan
  variables { kubernetes_version = "1.35.1" }
  expect_failures = [var.kubernetes_version]
}

run "refuses_version_too_old_for_the_chart" {
  command = plan
  variables { kubernetes_version = "1.30" }
  expect_failures = [var.kubernetes_version]
}

run "refuses_one_subnet" {
  command = plan
  variables { subnet_ids = ["subnet-a", "subnet-a"] }
  expect_failures = [var.subnet_ids]
}

run "refuses_no_administrator" {
  command = plan
  variables { admin_arns = [] }
  expect_failures = [var.admin_arns]
}

run "refuses_session_for_administrator" {
  command = plan
  variables { admin_arns = ["arn:aws:sts::123456789012:assumed-role/admin/anna"] }
  expect_failures = [var.admin_arns]
}

run "refuses_everybody_for_administrator" {
  command = plan
  variables { admin_arns = ["arn:aws:iam::123456789012:role/*"] }
  expect_failures = [var.admin_arns]
}

run "refuses_api_open_to_the_world" {
  command = plan
  variables { api_cidrs = ["203.0.113.7/32", "0.0.0.0/0"] }
  expect_failures = [var.api_cidrs]
}

run "refuses_api_open_to_half_the_world" {
  command = plan
  variables { api_cidrs = ["0.0.0.0/1", "128.0.0.0/1"] }
  expect_failures = [var.api_cidrs]
}

run "refuses_api_range_with_host_bits" {
  command = plan
  variables { api_cidrs = ["203.0.113.7/24"] }
  expect_failures = [var.api_cidrs]
}

run "refuses_api_range_of_ipv6" {
  command = plan
  variables { api_cidrs = ["2001:db8::/32"] }
  expect_failures = [var.api_cidrs]
}

run "refuses_api_address_without_length" {
  command = plan
  variables { api_cidrs = ["203.0.113.7"] }
  expect_failures = [var.api_cidrs]
}

run "refuses_no_instance_type" {
  command = plan
  variables { node_instance_types = [] }
  expect_failures = [var.node_instance_types]
}

run "refuses_family_for_instance_type" {
  command = plan
  variables { node_instance_types = ["t3"] }
  expect_failures = [var.node_instance_types]
}

run "refuses_unknown_architecture" {
  command = plan
  variables { node_architecture = "x86_64" }
  expect_failures = [var.node_architecture]
}

run "refuses_no_node" {
  command = plan
  variables { node_count = { min = 0, max = 3 } }
  expect_failures = [var.node_count]
}

run "refuses_more_than_the_most" {
  command = plan
  variables { node_count = { min = 4, max = 3 } }
  expect_failures = [var.node_count]
}

run "refuses_more_nodes_than_a_group_has" {
  command = plan
  variables { node_count = { min = 2, max = 451 } }
  expect_failures = [var.node_count]
}

run "refuses_part_of_a_node" {
  command = plan
  variables { node_count = { min = 1.5, max = 3 } }
  expect_failures = [var.node_count]
}

run "refuses_disk_smaller_than_the_image" {
  command = plan
  variables { node_disk_gib = 10 }
  expect_failures = [var.node_disk_gib]
}

run "refuses_retention_that_cloudwatch_has_not" {
  command = plan
  variables { log_retention_days = 0 }
  expect_failures = [var.log_retention_days]
}
