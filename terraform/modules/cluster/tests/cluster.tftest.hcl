mock_provider "aws" {
  source = "../../tests/mocks"

  override_resource {
    target = aws_iam_role.control_plane
    values = { id = "control-plane", arn = "arn:aws:iam::123456789012:role/control-plane" }
  }

  override_resource {
    target = aws_iam_role.nodes
    values = { id = "nodes", arn = "arn:aws:iam::123456789012:role/nodes" }
  }
}

variables {
  name                = "roster"
  kubernetes_version  = "1.36"
  deletion_protection = true
  subnet_ids          = ["subnet-0a", "subnet-0b", "subnet-0c"]
  admin_arns          = ["arn:aws:iam::123456789012:role/admin", "arn:aws:iam::123456789012:user/ops/anna"]
  namespace           = "people"
  namespace_access    = {}
  api_cidrs           = []
  log_retention_days  = 30
}

run "auto_mode" {
  assert {
    condition     = one(aws_eks_cluster.control_plane.compute_config).enabled && one(one(aws_eks_cluster.control_plane.kubernetes_network_config).elastic_load_balancing).enabled && one(one(aws_eks_cluster.control_plane.storage_config).block_storage).enabled
    error_message = "EKS accepts Auto Mode only with nodes, load balancers and volumes together."
  }

  assert {
    condition     = one(aws_eks_cluster.control_plane.compute_config).node_pools == toset(["general-purpose", "system"]) && one(aws_eks_cluster.control_plane.compute_config).node_role_arn == "arn:aws:iam::123456789012:role/nodes"
    error_message = "Both built-in node pools use the role of the nodes."
  }

  assert {
    condition     = aws_eks_cluster.control_plane.bootstrap_self_managed_addons == false
    error_message = "Auto Mode replaces the self-managed add-ons."
  }

  assert {
    condition     = { for name, attachment in aws_iam_role_policy_attachment.nodes : attachment.policy_arn => attachment.role } == { for name in ["AmazonEC2ContainerRegistryPullOnly", "AmazonEKSWorkerNodeMinimalPolicy"] : "arn:aws:iam::aws:policy/${name}" => "roster-nodes-eu-west-1" }
    error_message = "The nodes join the cluster and pull images, and nothing else."
  }

  assert {
    condition     = { for name, attachment in aws_iam_role_policy_attachment.control_plane : attachment.policy_arn => attachment.role } == { for name in ["BlockStorage", "Cluster", "Compute", "LoadBalancing", "Networking"] : "arn:aws:iam::aws:policy/AmazonEKS${name}Policy" => "roster-cluster-eu-west-1" }
    error_message = "The control plane has the five policies of Auto Mode."
  }

  assert {
    condition     = jsondecode(aws_iam_role.control_plane.assume_role_policy).Statement == [{ Effect = "Allow", Principal = { Service = "eks.amazonaws.com" }, Action = ["sts:AssumeRole", "sts:TagSession"] }]
    error_message = "Auto Mode tags the sessions of the control plane's role."
  }

  assert {
    condition     = jsondecode(aws_iam_role.nodes.assume_role_policy).Statement == [{ Effect = "Allow", Principal = { Service = "ec2.amazonaws.com" }, Action = "sts:AssumeRole" }]
    error_message = "Only instances use the role of the nodes."
  }

  assert {
    condition     = aws_eks_addon.metrics_server.addon_name == "metrics-server" && aws_eks_addon.metrics_server.addon_version == "v0.8.0-eksbuild.3" && data.aws_eks_addon_version.metrics_server.kubernetes_version == "1.36"
    error_message = "metrics-server follows the version of Kubernetes."
  }
}

run "control_plane" {
  assert {
    condition     = aws_eks_cluster.control_plane.name == "roster" && aws_eks_cluster.control_plane.version == "1.36" && aws_eks_cluster.control_plane.role_arn == "arn:aws:iam::123456789012:role/control-plane"
    error_message = "Name, version and role are those of the variables."
  }

  assert {
    condition     = one(aws_eks_cluster.control_plane.upgrade_policy).support_type == "STANDARD" && aws_eks_cluster.control_plane.deletion_protection
    error_message = "No extended support, and no deletion while protected."
  }

  assert {
    condition     = one(aws_eks_cluster.control_plane.vpc_config).subnet_ids == toset(["subnet-0a", "subnet-0b", "subnet-0c"]) && one(aws_eks_cluster.control_plane.vpc_config).endpoint_private_access && one(aws_eks_cluster.control_plane.vpc_config).endpoint_public_access == false
    error_message = "The Kubernetes API is reachable from the VPC only."
  }

  assert {
    condition     = aws_eks_cluster.control_plane.enabled_cluster_log_types == toset(["api", "audit", "authenticator", "controllerManager", "scheduler"]) && aws_cloudwatch_log_group.control_plane.name == "/aws/eks/roster/cluster" && aws_cloudwatch_log_group.control_plane.retention_in_days == 30
    error_message = "All logs are written, to the group that EKS uses, and expire."
  }

  assert {
    condition     = one(aws_eks_cluster.control_plane.encryption_config).resources == toset(["secrets"]) && one(one(aws_eks_cluster.control_plane.encryption_config).provider).key_arn == aws_kms_key.secrets.arn && aws_kms_key.secrets.enable_key_rotation
    error_message = "Secrets are encrypted with a key that is rotated."
  }

  assert {
    condition     = jsondecode(aws_kms_key.secrets.policy).Statement[*].Principal == [{ AWS = "arn:aws:iam::123456789012:root" }] && jsondecode(aws_iam_role_policy.secrets.policy).Statement[*].Resource == [aws_kms_key.secrets.arn] && aws_iam_role_policy.secrets.role == "control-plane"
    error_message = "The account owns the key, and the control plane uses it."
  }
}

run "access" {
  variables {
    namespace_access = {
      "arn:aws:iam::123456789012:role/deploy" = "AmazonEKSEditPolicy"
      "arn:aws:iam::123456789012:role/admin"  = "AmazonEKSViewPolicy"
    }
  }

  assert {
    condition     = one(aws_eks_cluster.control_plane.access_config).authentication_mode == "API" && one(aws_eks_cluster.control_plane.access_config).bootstrap_cluster_creator_admin_permissions == false
    error_message = "Only access entries grant access."
  }

  assert {
    condition     = toset([for entry in aws_eks_access_entry.people : entry.principal_arn]) == toset(["arn:aws:iam::123456789012:role/admin", "arn:aws:iam::123456789012:role/deploy", "arn:aws:iam::123456789012:user/ops/anna"])
    error_message = "Each principal has one entry."
  }

  assert {
    condition     = { for association in aws_eks_access_policy_association.admin : association.principal_arn => "${association.policy_arn} ${one(association.access_scope).type}" } == { for arn in var.admin_arns : arn => "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy cluster" }
    error_message = "Administrators administer the cluster."
  }

  assert {
    condition = { for association in aws_eks_access_policy_association.namespace : association.principal_arn => "${association.policy_arn} ${one(association.access_scope).type} ${join(",", one(association.access_scope).namespaces)}" } == {
      "arn:aws:iam::123456789012:role/deploy" = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSEditPolicy namespace people"
      "arn:aws:iam::123456789012:role/admin"  = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy namespace people"
    }
    error_message = "Others have their policy in the namespace."
  }
}

run "public_endpoint" {
  variables {
    api_cidrs           = ["203.0.113.7/32", "198.51.100.0/24"]
    deletion_protection = false
  }

  assert {
    condition     = one(aws_eks_cluster.control_plane.vpc_config).endpoint_private_access && one(aws_eks_cluster.control_plane.vpc_config).endpoint_public_access && one(aws_eks_cluster.control_plane.vpc_config).public_access_cidrs == toset(["198.51.100.0/24", "203.0.113.7/32"])
    error_message = "The Kubernetes API is reachable from the ranges, and from the VPC."
  }

  assert {
    condition     = aws_eks_cluster.control_plane.deletion_protection == false
    error_message = "Without protection the cluster can be deleted."
  }
}

run "rejects_version_in_extended_support" {
  command = plan
  variables { kubernetes_version = "1.34" }
  expect_failures = [var.kubernetes_version]
}

run "rejects_patch_version" {
  command = plan
  variables { kubernetes_version = "1.36.1" }
  expect_failures = [var.kubernetes_version]
}

run "rejects_cluster_without_administrator" {
  command = plan
  variables { admin_arns = [] }
  expect_failures = [var.admin_arns]
}

run "rejects_session_as_administrator" {
  command = plan
  variables { admin_arns = ["arn:aws:sts::123456789012:assumed-role/admin/anna"] }
  expect_failures = [var.admin_arns]
}

run "rejects_administration_of_a_namespace_by_the_wrong_policy" {
  command = plan
  variables { namespace_access = { "arn:aws:iam::123456789012:role/deploy" = "AmazonEKSClusterAdminPolicy" } }
  expect_failures = [var.namespace_access]
}

run "rejects_api_open_to_half_the_world" {
  command = plan
  variables { api_cidrs = ["203.0.113.7/32", "0.0.0.0/1"] }
  expect_failures = [var.api_cidrs]
}
